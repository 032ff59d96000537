package egress

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameserver is a DNS server on loopback that an attacker could run: it answers each name's questions as its zone says, in turn.
type nameserver struct {
	conn net.PacketConn
	mu   sync.Mutex
	zone map[string][]answer // the last one for ever
	asks map[string]int      // questions for A
}

// answer is what one pair of questions, A and AAAA, yields.
type answer struct {
	addrs string // both families, separated by spaces
	alias string // a CNAME instead
}

func newNameserver(t *testing.T) *nameserver {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nameserver{conn: conn, zone: map[string][]answer{}, asks: map[string]int{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			size, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply, err := n.reply(buf[:size]); err == nil {
				conn.WriteTo(reply, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return n
}

// resolver is Go's own, with this server as the only one.
func (n *nameserver) resolver() Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", n.conn.LocalAddr().String())
	}}
}

func (n *nameserver) reply(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil, err
	}
	q := m.Questions[0]
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	a, known := n.turn(q)
	if !known {
		m.RCode = dnsmessage.RCodeNameError
		return m.Pack()
	}
	owner := q.Name
	if a.alias != "" {
		to := dnsmessage.MustNewName(a.alias)
		m.Answers = append(m.Answers, resource(owner, dnsmessage.TypeCNAME, &dnsmessage.CNAMEResource{CNAME: to}))
		owner = to
	}
	for s := range strings.FieldsSeq(a.addrs) {
		switch ip := netip.MustParseAddr(s); {
		case ip.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, resource(owner, q.Type, &dnsmessage.AResource{A: ip.As4()}))
		case ip.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, resource(owner, q.Type, &dnsmessage.AAAAResource{AAAA: ip.As16()}))
		}
	}
	return m.Pack()
}

func resource(owner dnsmessage.Name, t dnsmessage.Type, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: owner, Type: t, Class: dnsmessage.ClassINET}, Body: body}
}

// turn gives the answer to a question: the questions of one look-up, for A and for AAAA, see the same one.
func (n *nameserver) turn(q dnsmessage.Question) (answer, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := q.Name.String()
	all := n.zone[key]
	if len(all) == 0 {
		return answer{}, false
	}
	of := key + q.Type.String()
	i := min(n.asks[of], len(all)-1)
	n.asks[of]++
	return all[i], true
}

// hold makes the server answer for a name in example.com.
func (n *nameserver) hold(name string, all ...answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.zone[name+".example.com."] = all
}

// TestHostileNameserver asks real DNS: whatever a server answers, only what was judged is dialled, and each request asks once.
func TestHostileNameserver(t *testing.T) {
	dns := newNameserver(t)
	w := newWorld(t, func(o *Options) { o.Resolver = dns.resolver() })
	const public = "93.184.216.34"
	bad := map[string]answer{
		"loopback":   {addrs: "127.0.0.1"},
		"mixed":      {addrs: public + " 10.0.0.1"},
		"mixedback":  {addrs: "10.0.0.1 " + public},
		"mixed6":     {addrs: public + " ::1"},
		"many":       {addrs: strings.Repeat(public+" ", 20) + "127.0.0.1"},
		"metadata":   {addrs: "169.254.169.254"},
		"hostagent":  {addrs: "168.63.129.16"},
		"mapped":     {addrs: "::ffff:127.0.0.1"},
		"compatible": {addrs: "::127.0.0.1"},
		"nat64":      {addrs: "64:ff9b::127.0.0.1"},
		"sixtofour":  {addrs: "2002:7f00:1::1"},
		"teredo":     {addrs: "2001:0:1::1"},
		"unique":     {addrs: "fd00:ec2::254"},
		"zero":       {addrs: "0.0.0.0"},
		"alias":      {alias: "inner.example.net.", addrs: "192.168.1.1"},
	}
	for name, a := range bad {
		dns.hold(name, a)
	}
	dns.hold("good", answer{addrs: public + " 2606:4700::1111"})
	dns.hold("goodalias", answer{alias: "a.example.net.", addrs: public})
	dns.hold("rebind", answer{addrs: public}, answer{addrs: "127.0.0.1"}, answer{addrs: public}, answer{addrs: "10.0.0.1"})
	w.rules("*.example.com:443", "")
	for name := range bad {
		w.want(name+".example.com:443", 403, ReasonAddress)
	}
	w.want("good.example.com:443", 200, "")
	w.want("goodalias.example.com:443", 200, "")
	w.want("none.example.com:443", 502, ReasonDNS)
	for _, status := range []int{200, 403, 200, 403} {
		w.want("rebind.example.com:443", status, ReasonAddress)
	}
	for _, a := range w.dialed() {
		if c := Classify(a.Addr()); c != ClassPublic {
			t.Errorf("dialled %v, which is %v", a, c)
		}
	}
	dns.mu.Lock()
	defer dns.mu.Unlock()
	if n := dns.asks["rebind.example.com."+dnsmessage.TypeA.String()]; n != 4 {
		t.Errorf("4 requests asked for the name %d times", n)
	}
}
