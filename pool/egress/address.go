package egress

import "net/netip"

// Class is what an address is good for.
type Class uint8

// The classes.
const (
	// ClassNever is no destination of a connection: unspecified, multicast, broadcast, or another form of an IPv4 address.
	ClassNever Class = iota
	// ClassLiteral is for private rules that write the very address, as no name that such a rule allows should lead there:
	// link-local addresses, metadata services of clouds, and IPv6 addresses that a gateway translates to IPv4 ones.
	ClassLiteral
	// ClassSpecial is for private rules only: private, loopback, whatever else IANA's registries of special-purpose addresses
	// hold.
	ClassSpecial
	// ClassPublic is the rest.
	ClassPublic
)

func (c Class) String() string { return [...]string{"never", "literal", "special", "public"}[c] }

type block struct {
	prefix netip.Prefix
	class  Class
}

func blockOf(prefix string, c Class) block { return block{netip.MustParsePrefix(prefix), c} }

// blocks4 is IANA's IPv4 special-purpose registry and what clouds have put elsewhere. The first that holds an address counts.
var blocks4 = []block{
	blockOf("0.0.0.0/8", ClassNever),            // "this network": Linux takes 0.0.0.0 for itself
	blockOf("255.255.255.255/32", ClassNever),   // limited broadcast
	blockOf("224.0.0.0/4", ClassNever),          // multicast
	blockOf("10.0.0.0/8", ClassSpecial),         // private
	blockOf("100.100.100.200/32", ClassLiteral), // a cloud's metadata, within:
	blockOf("100.64.0.0/10", ClassSpecial),      // carrier-grade NAT
	blockOf("127.0.0.0/8", ClassSpecial),        // loopback
	blockOf("169.254.0.0/16", ClassLiteral),     // link-local; metadata at 169.254.169.254
	blockOf("172.16.0.0/12", ClassSpecial),      // private
	blockOf("192.0.0.192/32", ClassLiteral),     // a cloud's metadata, within:
	blockOf("192.0.0.0/24", ClassSpecial),       // IETF protocol assignments
	blockOf("192.0.2.0/24", ClassSpecial),       // documentation
	blockOf("192.31.196.0/24", ClassSpecial),    // AS112
	blockOf("192.52.193.0/24", ClassSpecial),    // automatic multicast tunnelling
	blockOf("192.88.99.0/24", ClassSpecial),     // 6to4 relays
	blockOf("192.168.0.0/16", ClassSpecial),     // private
	blockOf("192.175.48.0/24", ClassSpecial),    // AS112
	blockOf("198.18.0.0/15", ClassSpecial),      // benchmarking
	blockOf("198.51.100.0/24", ClassSpecial),    // documentation
	blockOf("203.0.113.0/24", ClassSpecial),     // documentation
	blockOf("240.0.0.0/4", ClassSpecial),        // reserved
	blockOf("168.63.129.16/32", ClassLiteral),   // a cloud's host agent, on a public address
}

// blocks6 holds what is not public within 2000::/3, and what is no destination outside it; the rest outside is special.
var blocks6 = []block{
	blockOf("::1/128", ClassSpecial),           // loopback
	blockOf("::/96", ClassNever),               // unspecified, IPv4-compatible
	blockOf("::ffff:0:0/96", ClassNever),       // IPv4-mapped: unmapped before it comes here
	blockOf("::ffff:0:0:0/96", ClassNever),     // IPv4-translated
	blockOf("ff00::/8", ClassNever),            // multicast
	blockOf("64:ff9b::/96", ClassLiteral),      // NAT64
	blockOf("64:ff9b:1::/48", ClassLiteral),    // NAT64 with a prefix of one's own
	blockOf("fe80::/10", ClassLiteral),         // link-local
	blockOf("fd00:ec2::/32", ClassLiteral),     // a cloud's metadata
	blockOf("fd20:ce::254/128", ClassLiteral),  // a cloud's metadata
	blockOf("2001::/32", ClassLiteral),         // Teredo
	blockOf("2001::/23", ClassSpecial),         // IETF protocol assignments: benchmarking, ORCHID
	blockOf("2001:db8::/32", ClassSpecial),     // documentation
	blockOf("2002::/16", ClassLiteral),         // 6to4
	blockOf("2620:4f:8000::/48", ClassSpecial), // AS112
	blockOf("3fff::/20", ClassSpecial),         // documentation
}

var globalUnicast6 = netip.MustParsePrefix("2000::/3")

// Classify says what a is good for. IPv4-mapped IPv6 addresses are ClassNever: unmap what a resolver answers first.
func Classify(a netip.Addr) Class {
	if !a.IsValid() || a.Zone() != "" {
		return ClassNever
	}
	blocks, otherwise := blocks4, ClassPublic
	if !a.Is4() {
		blocks = blocks6
		if !globalUnicast6.Contains(a) {
			otherwise = ClassSpecial
		}
	}
	for _, b := range blocks {
		if b.prefix.Contains(a) {
			return b.class
		}
	}
	return otherwise
}

// dangerousPorts are refused unless a private rule names the port: remote shells, mail, and the control planes of
// container engines and clusters, which trust whoever reaches them.
var dangerousPorts = [...]uint16{22, 25, 2375, 2376, 2379, 2380, 6443, 10250}

func dangerous(port uint16) bool {
	for _, p := range dangerousPorts {
		if p == port {
			return true
		}
	}
	return false
}
