package egress

import (
	"fmt"
	"net/textproto"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"paddock/internal/tenant"
)

// The ports of http: and https:.
const (
	portHTTP  = 80
	portHTTPS = 443
)

// Injection is a header with a secret of the tenant that the proxy adds to what the code sends to one host over http:, on its way
// out over https:. Comparable.
type Injection struct {
	asked  destination // what the code connects to
	to     destination // where that leads
	header string      // canonical
	prefix string
	secret string
}

// Bounds of an injection's parts.
const (
	maxHeaderName  = 64
	maxPrefix      = 64
	maxSecretName  = 128
	maxHeaderValue = 8 << 10
)

// ParseInjection reads one injection of a policy. Its host is a name or an address, with or without a port; without one, http:
// on port 80 goes out to 443.
func ParseInjection(in tenant.Injection) (Injection, error) {
	fail := func(format string, args ...any) (Injection, error) {
		return Injection{}, fmt.Errorf("injection for %.100q: %s", in.Host, fmt.Sprintf(format, args...))
	}
	inj := Injection{header: textproto.CanonicalMIMEHeaderKey(in.Header), prefix: in.Prefix, secret: in.Secret}
	var err error
	if inj.asked, err = parseHostWithPort(in.Host, portHTTP); err != nil {
		return fail(`%v; write the host as "api.example.com" or "api.example.com:8443"`, err)
	}
	inj.to = inj.asked
	if inj.to.port == portHTTP {
		inj.to.port = portHTTPS
	}
	switch {
	case !httpguts.ValidHeaderFieldName(in.Header) || len(in.Header) > maxHeaderName:
		return fail("%.80q is not the name of a header", in.Header)
	case slices.Contains(heldHeaders, inj.header) || strings.HasPrefix(inj.header, "Proxy-"):
		return fail("the header %s belongs to the connection or the message", inj.header)
	case !httpguts.ValidHeaderFieldValue(in.Prefix) || len(in.Prefix) > maxPrefix || strings.HasPrefix(in.Prefix, " "):
		return fail("the prefix %.80q does not fit a header", in.Prefix)
	case in.Secret == "" || len(in.Secret) > maxSecretName:
		return fail("it names no secret")
	}
	return inj, nil
}

// heldHeaders are no place for a secret: what they say decides how a message is read, or is dropped on the way.
var heldHeaders = []string{
	"Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host", "Keep-Alive", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade",
}

// CheckInjections judges a policy's list: each for itself, and that no two set the same header.
func CheckInjections(list []tenant.Injection) error {
	seen := map[Injection]bool{}
	for _, in := range list {
		inj, err := ParseInjection(in)
		if err != nil {
			return err
		}
		place := Injection{asked: inj.asked, header: inj.header}
		if seen[place] {
			return fmt.Errorf("injection for %q: the header %s is there twice", in.Host, inj.header)
		}
		seen[place] = true
	}
	return nil
}

// parseHostWithPort reads "host" or "host:port"; IPv6 in brackets.
func parseHostWithPort(s string, otherwise uint16) (destination, error) {
	if i := strings.LastIndexByte(s, ':'); i < 0 || strings.HasSuffix(s, "]") {
		s = fmt.Sprintf("%s:%d", s, otherwise)
	}
	return parseDestination(s)
}

// injectionsFor returns those of the list that are about a destination.
func injectionsFor(list []Injection, asked destination) (found []Injection) {
	for _, inj := range list {
		if inj.asked == asked {
			found = append(found, inj)
		}
	}
	return found
}
