package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
)

// systemResolver is the host's: its hosts file, then its DNS. Names reach DNS with their last dot, which keeps search
// domains out; but Go's resolver does not find a name with that dot in the hosts file, so that is asked first.
type systemResolver struct {
	files *net.Resolver
	dns   *net.Resolver
}

func newSystemResolver() systemResolver {
	noDNS := func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("not in the hosts file")
	}
	return systemResolver{files: &net.Resolver{PreferGo: true, Dial: noDNS}, dns: &net.Resolver{}}
}

func (r systemResolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if addrs, err := r.files.LookupNetIP(ctx, network, strings.TrimSuffix(host, ".")); err == nil && len(addrs) > 0 {
		return addrs, nil
	}
	return r.dns.LookupNetIP(ctx, network, host)
}
