package egress

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Rule names destinations: "host:port", "*.example.com:443" (any name below, not example.com itself), "*:443" (any public
// host). The host may be an IP address, IPv6 in brackets. The port may be "*": any but the ports that are refused unless a
// private rule names them. Names are compared in lower case, in punycode, without a dot at the end.
type Rule struct {
	host     string // normalised name; "" with any or addr
	below    bool   // host stands for the names below it
	any      bool
	addr     netip.Addr
	port     uint16 // 0 = any
	original string
}

func (r Rule) String() string { return r.original }

// ParseRule reads one rule.
func ParseRule(s string) (Rule, error) {
	const most = 300
	if len(s) > most {
		return Rule{}, fmt.Errorf("egress rule of %d bytes: at most %d", len(s), most)
	}
	host, port, ok := cutPort(s)
	if !ok {
		return Rule{}, fmt.Errorf(`egress rule %q: write it as "host:port", "*.example.com:443" or "[2001:db8::1]:443"`, s)
	}
	r := Rule{original: s}
	if port != "*" {
		n, err := parsePort(port)
		if err != nil {
			return Rule{}, fmt.Errorf("egress rule %q: %w", s, err)
		}
		r.port = n
	}
	if host == "*" {
		r.any = true
		return r, nil
	}
	if rest, found := strings.CutPrefix(host, "*."); found {
		host, r.below = rest, true
	}
	name, addr, err := parseHost(host)
	if err != nil {
		return Rule{}, fmt.Errorf("egress rule %q: %w", s, err)
	}
	if r.below && addr.IsValid() {
		return Rule{}, fmt.Errorf("egress rule %q: a wildcard goes with a name, not with an address", s)
	}
	r.host, r.addr = name, addr
	return r, nil
}

// matches says whether the rule is about the destination.
func (r Rule) matches(d destination) bool {
	if r.port != 0 && r.port != d.port {
		return false
	}
	switch {
	case r.any:
		return true
	case r.addr.IsValid() || d.addr.IsValid():
		return r.addr.IsValid() && r.addr == d.addr
	case r.below:
		return strings.HasSuffix(d.name, r.host) && len(d.name) > len(r.host) && d.name[len(d.name)-len(r.host)-1] == '.'
	}
	return r.host == d.name
}

// destination is what a CONNECT asks for: a name or an address, and a port.
type destination struct {
	name string // normalised
	addr netip.Addr
	port uint16
}

func (d destination) host() string {
	if d.addr.IsValid() {
		return d.addr.String()
	}
	return d.name
}

// urlHost is the host as a URL has it.
func (d destination) urlHost() string {
	if d.addr.Is6() {
		return "[" + d.addr.String() + "]"
	}
	return d.host()
}

func (d destination) String() string {
	if d.addr.IsValid() {
		return netip.AddrPortFrom(d.addr, d.port).String()
	}
	return d.name + ":" + strconv.Itoa(int(d.port))
}

// parseDestination reads CONNECT's authority.
func parseDestination(s string) (d destination, err error) {
	const most = 300
	if len(s) > most {
		return d, fmt.Errorf("a destination of %d bytes", len(s))
	}
	host, port, ok := cutPort(s)
	if !ok {
		return d, fmt.Errorf("%q is not host:port", s)
	}
	if d.port, err = parsePort(port); err != nil {
		return d, err
	}
	d.name, d.addr, err = parseHost(host)
	return d, err
}

// cutPort splits at the last colon; a host with colons has to stand in brackets, which stay.
func cutPort(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || i == len(s)-1 {
		return "", "", false
	}
	host, port = s[:i], s[i+1:]
	return host, port, host[0] == '[' || !strings.ContainsRune(host, ':')
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '0' || s[0] == '+' {
		return 0, fmt.Errorf("port %.20q is none of 1 to 65535", s)
	}
	return uint16(n), nil
}

// names maps to lower case and punycode, and refuses what no resolver should be asked.
var names = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))

// parseHost returns a normalised name or an address. What some resolvers would take for an address, such as 127.1,
// 0x7f000001 or 2130706433, is an error.
func parseHost(s string) (name string, addr netip.Addr, err error) {
	if strings.HasPrefix(s, "[") {
		inner, ok := strings.CutSuffix(s[1:], "]")
		addr, err = netip.ParseAddr(inner)
		if !ok || err != nil || !addr.Is6() || addr.Is4In6() || addr.Zone() != "" {
			return "", netip.Addr{}, fmt.Errorf("%q is not an IPv6 address in brackets", s)
		}
		return "", addr, nil
	}
	ascii, err := names.ToASCII(s)
	if err != nil {
		return "", netip.Addr{}, fmt.Errorf("%q is not a host name", s)
	}
	ascii = strings.TrimSuffix(strings.ToLower(ascii), ".")
	if endsInNumber(ascii) {
		if addr, err = netip.ParseAddr(ascii); err != nil || !addr.Is4() || ascii != s {
			return "", netip.Addr{}, fmt.Errorf("%q is not an IPv4 address in its usual form", s)
		}
		return "", addr, nil
	}
	// A name in its normal form is the same however often it is normalised; what is not could be two names at once.
	again, err := names.ToASCII(ascii)
	if err != nil || again != ascii || !utf8.ValidString(s) || !validName(ascii) {
		return "", netip.Addr{}, fmt.Errorf("%q is not a host name", s)
	}
	return ascii, netip.Addr{}, nil
}

// endsInNumber says whether a lenient parser would take the host for an IPv4 address: its last label is a number, in
// decimal, octal or hexadecimal.
func endsInNumber(s string) bool {
	last := s[strings.LastIndexByte(s, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

func validName(s string) bool {
	const mostName, mostLabel = 253, 63
	if s == "" || len(s) > mostName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > mostLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, b := range []byte(label) {
			if (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '-' && b != '_' {
				return false
			}
		}
	}
	return true
}
