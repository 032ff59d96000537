package main

import (
	"log/slog"
	"net"
	"net/netip"

	"golang.org/x/time/rate"

	"paddock/pool/egress"
)

// Refusals that are logged; the rest is only counted, since it is tenants' code that causes them.
const (
	refusalsPerSecond = 5
	refusalsBurst     = 50
)

// newEgress makes the one way out of this controller's sandboxes. It never leads back to the service's own listeners.
func (s *service) newEgress() *egress.Proxy {
	log := s.log.With("part", "egress")
	return egress.New(egress.Options{
		Logger: log, Audit: auditRefusals(log), Forbidden: ownAddress(s.opened.http.Addr(), s.opened.grpc.Addr()),
	})
}

func auditRefusals(log *slog.Logger) func(egress.Decision) {
	limit := rate.NewLimiter(refusalsPerSecond, refusalsBurst)
	return func(d egress.Decision) {
		if !d.Allowed && limit.Allow() {
			log.Info("egress refused", "tenant", d.Tenant, "container", d.Container, "host", d.Host, "port", d.Port, "reason", d.Reason)
		}
	}
}

// ownAddress says whether an address leads to one of the listeners.
func ownAddress(listeners ...net.Addr) func(netip.AddrPort) bool {
	var own []netip.AddrPort
	for _, l := range listeners {
		if ap, err := netip.ParseAddrPort(l.String()); err == nil {
			own = append(own, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
		}
	}
	return func(to netip.AddrPort) bool {
		addr := to.Addr().Unmap()
		for _, o := range own {
			if to.Port() == o.Port() && (addr == o.Addr() || addr.IsUnspecified() || o.Addr().IsUnspecified() && isLocal(addr)) {
				return true
			}
		}
		return false
	}
}

// isLocal says whether an address is one of this machine's, as it is now.
func isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return true // on doubt it is
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr {
			return true
		}
	}
	return false
}

// checkEgressRule judges a rule of a policy before it is stored.
func checkEgressRule(rule string) error {
	_, err := egress.ParseRule(rule)
	return err
}
