package hostile

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// listeners are on this machine, where no sandbox may come: TCP on loopback and on the machine's address, UDP on loopback.
type listeners struct {
	port int
	host string // the machine's own address, or loopback's
	seen atomic.Int64

	allowed int          // the port of a web server that some tenants may reach
	came    atomic.Int64 // its requests
	open    atomic.Int64 // its connections
}

func listen(t *testing.T) *listeners {
	t.Helper()
	l := &listeners{host: "127.0.0.1"}
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.port = first.Addr().(*net.TCPAddr).Port
	all := []net.Listener{first}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		ip, ok := a.(*net.IPNet)
		if !ok || ip.IP.IsLoopback() || ip.IP.To4() == nil {
			continue
		}
		if second, err := net.Listen("tcp", net.JoinHostPort(ip.IP.String(), strconv.Itoa(l.port))); err == nil {
			l.host = ip.IP.String()
			all = append(all, second)
			break
		}
	}
	for _, ln := range all {
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				l.seen.Add(1)
				c.Close()
			}
		}()
	}
	l.serveWeb(t)
	udp, err := net.ListenPacket("udp", first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	go func() {
		for buf := make([]byte, 16); ; {
			if _, _, err := udp.ReadFrom(buf); err != nil {
				return
			}
			l.seen.Add(1)
		}
	}()
	return l
}

// serveWeb has a page that redirects to wherever it is told, and one that does not end.
func (l *listeners) serveWeb(t *testing.T) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		if to := r.FormValue("to"); to != "" {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		}
	})
	mux.HandleFunc("/hold", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.came.Add(1)
		mux.ServeHTTP(w, r)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			l.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			l.open.Add(-1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	l.allowed = s.Listener.Addr().(*net.TCPAddr).Port
}

// mayGo lets the attacker's tenant reach the web server.
func mayGo(at *attempt) error { return at.letGo(at.tenant) }

// mayReachTheService has an operator write the service's own listeners into the attacker's lists.
func mayReachTheService(at *attempt) error {
	own := []string{strings.TrimPrefix(at.service.URL, "http://"), at.service.GRPC}
	policy := map[string]any{"egress": map[string]any{"hosts": append([]string{"*:*"}, own...)}, "egressPrivate": map[string]any{"hosts": own}}
	return at.service.operator("PATCH", "/v1/tenants/"+at.tenant, "", map[string]any{"policy": policy}, nil)
}

// letGo lets a tenant reach the web server, and nothing else.
func (b *battery) letGo(tenant string) error {
	to := fmt.Sprintf("127.0.0.1:%d", b.net.allowed)
	policy := map[string]any{"egress": map[string]any{"hosts": []string{to}}, "egressPrivate": map[string]any{"hosts": []string{to}}}
	return b.service.operator("PATCH", "/v1/tenants/"+tenant, "", map[string]any{"policy": policy}, nil)
}

// canaryMayGo lets another tenant go where the attacker may not.
func canaryMayGo(at *attempt) error {
	at.net.came.Store(0)
	return at.letGo(canaryTenant)
}

// canaryStays takes that back.
func canaryStays(at *attempt) []string {
	policy := map[string]any{"egress": map[string]any{}, "egressPrivate": map[string]any{}}
	if err := at.service.operator("PATCH", "/v1/tenants/"+canaryTenant, "", map[string]any{"policy": policy}, nil); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// nobodyCame wants the web server to have been left alone.
func nobodyCame(at *attempt) []string {
	if n := at.net.came.Load(); n > 0 {
		return []string{fmt.Sprintf("%d requests came under another's name", n)}
	}
	return nil
}

// tunnelsEnded wants no connection to the web server to have outlived the sandbox.
func tunnelsEnded(at *attempt) []string {
	began := time.Now()
	for at.net.open.Load() > 0 {
		if time.Since(began) > time.Second+at.pulse.slack(began) {
			return []string{fmt.Sprintf("%d tunnels are left", at.net.open.Load())}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// ownStream is the stream of an attack's call: a first call has used 1 to load and 2 to run, the attack's code is loaded on 3.
const ownStream = 4

// knowledge is what attackers are told of the host, which they might find out.
func (b *battery) knowledge(a *attack) map[string]any {
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(b.service.URL, "http://"))
	_, grpc, _ := net.SplitHostPort(b.service.GRPC)
	run := b.service.run + "/" + b.service.id
	b.canary.mu.Lock()
	other := run + "/c/" + b.canary.container
	b.canary.mu.Unlock()
	hostname, _ := os.Hostname()
	targets := [][2]string{{"127.0.0.1", strconv.Itoa(b.net.port)}, {b.net.host, strconv.Itoa(b.net.port)}, {"127.0.0.1", port}, {"127.0.0.1", grpc},
		{"169.254.169.254", "80"}, {"localhost", strconv.Itoa(b.net.port)}, {"::1", strconv.Itoa(b.net.port)}, {"fd00:ec2::254", "80"}, {"127.0.0.1", "2379"}}
	m := map[string]any{
		"stream": ownStream, "allowed": b.net.allowed, "router": port, "grpc": grpc, "host": b.net.host, "planted": b.planted.path, "port": b.net.port, "targets": targets,
		"paths":   []string{b.service.data, b.service.data + "/private", b.service.data + "/operator.key", run, run + "/s", other, fmt.Sprintf("/proc/%d/root", b.service.PID), fmt.Sprintf("/proc/%d/environ", b.service.PID)},
		"sockets": []string{"/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", other + "/link", other + "/egress", run + "/s/oci/k/control", "/run/paddock/../c/link"},
		"hosts":   append(specialHosts(), b.net.host, hostname),
		"ports":   []int{b.net.port, 443, 80},
		"raw":     rawRequests(b.net.port, port),
	}
	maps.Copy(m, a.input)
	return m
}

// specialHosts are addresses, in all ways to write them, and names that are nobody's to reach.
func specialHosts() []string {
	return []string{"127.0.0.1", "localhost", "LOCALHOST.", "[::1]", "0.0.0.0", "[::]", "169.254.169.254", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]",
		"[::a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001::1]", "[fec0::1]", "[fc00::1]", "[fe80::1]",
		"[fd00:ec2::254]", "0.1.2.3", "100.64.0.1", "192.0.0.1", "198.18.0.1", "240.0.0.1", "255.255.255.255", "224.0.0.1", "[2001:db8::1]", "[100::1]",
		"168.63.129.16", "10.0.0.1", "172.16.0.1", "192.168.0.1", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.1.", "ip6-localhost",
		"[fe80::1%25lo]", "[::ffff:0:7f00:1]", "127.0.0.1%00.example.com"}
}

// rawRequests are requests that try the proxy itself, and ports that stay shut.
func rawRequests(port int, router string) []string {
	connect := func(to, more string) string {
		return "CONNECT " + to + " HTTP/1.1\r\nHost: example.com:443\r\n" + more + "\r\n"
	}
	local := fmt.Sprintf("127.0.0.1:%d", port)
	list := []string{
		connect(local, ""), connect(local, "Paddock-Tenant: canary\r\nX-Forwarded-For: 127.0.0.1\r\n"), connect("example.com@"+local, ""), connect("127.0.0.1:"+router, ""),
		connect("", ""), connect("/etc/passwd", ""), connect("127.0.0.1", ""), connect("127.0.0.1:0", ""), connect("127.0.0.1:65536", ""), connect("127.0.0.1:-1", ""),
		"GET http://" + local + "/ HTTP/1.1\r\nHost: " + local + "\r\n\r\n", "GET / HTTP/1.1\r\nHost: " + local + "\r\n\r\n",
		"POST http://" + local + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"CONNECT " + local + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", strings.Repeat("A", 70000) + "\r\n\r\n",
		"CONNECT " + local + " HTTP/1.1\r\nX: " + strings.Repeat("a", 70000) + "\r\n\r\n",
		connect(local, "") + connect(local, ""), "\x04\x01\x00\x50\x7f\x00\x00\x01\x00", "\x05\x01\x00",
	}
	return list
}
