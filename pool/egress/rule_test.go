package egress

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseRule(t *testing.T) {
	for _, s := range []string{
		"example.com:443", "*.example.com:443", "EXAMPLE.com.:443", "bücher.example:80", "1.2.3.4:80", "[2001:db8::1]:80", "*:443",
		"example.com:*", "a_b.example.com:1", "localhost:65535", "xn--bcher-kva.example:443",
	} {
		if r, err := ParseRule(s); err != nil || r.String() != s {
			t.Errorf("%s: %q, %v", s, r, err)
		}
	}
	for _, s := range []string{
		"", ":", "example.com", "example.com:", ":443", "example.com:0", "example.com:65536", "example.com:-1", "example.com:+1",
		"example.com:080", "example.com:http", "2001:db8::1:443", "[1.2.3.4]:80", "[::ffff:1.2.3.4]:80", "[fe80::1%eth0]:80", "[::1:80",
		"127.1:80", "0x7f.0.0.1:80", "0x7f000001:80", "2130706433:80", "0177.0.0.1:80", "1.2.3.4.:80", "1.2.3.256:80", "*.1.2.3.4:80",
		"*.*.com:80", "a.*.com:80", "-a.com:80", "a..b:80", "a b:80", "a/b:80", "http://a.com:80", "a.com:80\n", "a\x00b:80",
		strings.Repeat("a", 64) + ".com:80", strings.Repeat("a.", 127) + "com:80", "１２７.0.0.1:80", "user@a.com:80",
	} {
		if r, err := ParseRule(s); err == nil {
			t.Errorf("%q became %+v", s, r)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		rule, to string
		want     bool
	}{
		{"example.com:443", "example.com:443", true},
		{"example.com:443", "EXAMPLE.COM.:443", true},
		{"example.com:443", "example.com:80", false},
		{"example.com:443", "www.example.com:443", false},
		{"example.com:443", "example.com.evil.org:443", false},
		{"*.example.com:443", "www.example.com:443", true},
		{"*.example.com:443", "a.b.example.com:443", true},
		{"*.example.com:443", "example.com:443", false},
		{"*.example.com:443", "evilexample.com:443", false},
		{"*.example.com:443", ".example.com:443", false},
		{"bücher.example:443", "xn--bcher-kva.example:443", true},
		{"xn--bcher-kva.example:443", "BÜCHER.example:443", true},
		{"example.com:*", "example.com:8080", true},
		{"*:443", "anything.example:443", true},
		{"*:443", "1.2.3.4:443", true},
		{"1.2.3.4:443", "1.2.3.4:443", true},
		{"1.2.3.4:443", "1.2.3.5:443", false},
		{"[2001:db8::1]:443", "[2001:DB8:0::1]:443", true},
	} {
		r, err := ParseRule(c.rule)
		if err != nil {
			t.Fatal(err)
		}
		d, err := parseDestination(c.to)
		if got := err == nil && r.matches(d); got != c.want {
			t.Errorf("%s, %s: %v, want %v", c.rule, c.to, got, c.want)
		}
	}
}

func TestClassify(t *testing.T) {
	for class, addrs := range map[Class][]string{
		ClassPublic: {
			"1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "198.17.0.1",
			"198.20.0.1", "192.0.1.1", "168.63.129.17", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "2001:200::1",
			"2001:4860:4860::8888", "2003::1",
		},
		ClassSpecial: {
			"10.0.0.1", "10.255.255.255", "127.0.0.1", "127.255.255.254", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
			"100.127.255.255", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "240.0.0.1",
			"255.255.255.254", "192.88.99.1", "::1", "fec0::1", "fc00::1", "fd00::1", "100::1", "2001:1::1", "2001:2::1", "2001:10::1",
			"2001:20::1", "2001:db8::1", "2001:1ff::1", "3fff::1", "4000::1", "5f00::1", "1fff::1", "8000::1",
		},
		ClassLiteral: {
			"169.254.169.254", "169.254.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fe80::1", "febf::1", "fd00:ec2::254",
			"fd20:ce::254", "64:ff9b::a9fe:a9fe", "64:ff9b::1.1.1.1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001::1",
			"2001:0:1:2::3",
		},
		ClassNever: {
			"0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "239.255.255.255", "::", "::a9fe:a9fe", "::2", "::ffff:1.1.1.1",
			"::ffff:a9fe:a9fe", "::ffff:0:a9fe:a9fe", "ff02::1", "fe80::1%eth0", "2606:4700::1111%1",
		},
	} {
		for _, s := range addrs {
			if got := Classify(netip.MustParseAddr(s)); got != class {
				t.Errorf("%s is %v, want %v", s, got, class)
			}
		}
	}
	if Classify(netip.Addr{}) != ClassNever {
		t.Error("no address at all")
	}
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"example.com:443", "*.x:1", "[::1]:2", "1.2.3.4:*", "*:*", "0x7f.1:80", "bücher.example:80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRule(s)
		if err != nil {
			return
		}
		if r.any != (r.host == "" && !r.addr.IsValid()) {
			t.Fatalf("%q became %+v", s, r)
		}
		if r.any || r.below || r.port == 0 {
			return
		}
		// A rule allows what it is written as, in its normal form too.
		d, err := parseDestination(s)
		if err != nil || !r.matches(d) {
			t.Fatalf("%q does not match itself: %+v, %v", s, d, err)
		}
		if again, err := parseDestination(d.String()); err != nil || again != d {
			t.Fatalf("%q normalises to %q, that to %+v, %v", s, d, again, err)
		}
		if d.addr.IsValid() == (d.name != "") || d.addr.Is4In6() {
			t.Fatalf("%q is name and address at once, or neither: %+v", s, d)
		}
	})
}

// FuzzClassify holds Classify against Go's own, coarser judgement: what Go calls private, loopback, link-local, multicast or
// unspecified is never public, and no address that embeds a special IPv4 one is.
func FuzzClassify(f *testing.F) {
	for _, s := range []string{"1.1.1.1", "10.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fd00:ec2::254", "2001:db8::1"} {
		f.Add(netip.MustParseAddr(s).AsSlice())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		c := Classify(a)
		if c == ClassPublic && (a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() ||
			!a.IsGlobalUnicast() || a.Is4In6() || a.Is6() && !globalUnicast6.Contains(a)) {
			t.Fatalf("%v is public", a)
		}
		if a.Is4() && c != ClassPublic {
			v4 := a.As4()
			sixToFour := netip.AddrFrom16([16]byte{0x20, 0x02, v4[0], v4[1], v4[2], v4[3]})
			nat64 := netip.AddrFrom16([16]byte{0, 0x64, 0xff, 0x9b, 12: v4[0], v4[1], v4[2], v4[3]})
			mapped := netip.AddrFrom16(a.As16())
			for _, e := range []netip.Addr{sixToFour, nat64, mapped} {
				if Classify(e) == ClassPublic {
					t.Fatalf("%v is public and embeds %v", e, a)
				}
			}
		}
	})
}
