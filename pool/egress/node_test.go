package egress

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNode runs unchanged node code (fetch, http, https, net) in a process whose connects are patched as in a sandbox, against
// servers on this machine that an operator has named as private.
func TestNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("this test needs node on PATH: ", err)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello ", r.URL.Path) })
	plain, secure := httptest.NewServer(hello), httptest.NewTLSServer(hello)
	defer plain.Close()
	defer secure.Close()
	port := func(s *httptest.Server) uint16 { return s.Listener.Addr().(*net.TCPAddr).AddrPort().Port() }
	w := newWorld(t, func(o *Options) {
		o.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", to.String())
		}
	})
	w.name("app.internal", "127.0.0.1")
	w.rules("", fmt.Sprintf("app.internal:%d app.internal:%d", port(plain), port(secure)))
	script := fmt.Sprintf(`
		const http = require('http'), https = require('https'), net = require('net');
		const get = (m, u, o = {}) => new Promise((ok, no) => m.get(u, o, (r) => {
			let s = ''; r.on('data', (d) => s += d); r.on('end', () => ok(s)); }).on('error', no));
		(async () => {
			console.log(await (await fetch('http://app.internal:%[1]d/fetch')).text());
			console.log(await get(http, 'http://app.internal:%[1]d/http'));
			console.log(await get(https, 'https://app.internal:%[2]d/https', {rejectUnauthorized: false}));
			console.log(await new Promise((ok, no) => {
				const s = net.connect(%[1]d, 'app.internal', () => s.write('GET /net HTTP/1.0\r\n\r\n'));
				let all = ''; s.on('data', (d) => all += d); s.on('end', () => ok(all.split('\r\n\r\n')[1])); s.on('error', no);
			}));
			await get(http, 'http://127.0.0.1:%[1]d/').catch((e) => console.log('refused', e.message));
		})().catch((e) => { console.log('failed', e); process.exitCode = 1; }).then(() => process.exit());`, port(plain), port(secure))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	preload, err := filepath.Abs("../../runtimes/node/egress.js")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, node, "--no-warnings", "--require", preload, "-e", script)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PADDOCK_EGRESS=" + w.path}
	out, err := cmd.CombinedOutput()
	want := "hello /fetch\nhello /http\nhello /https\nhello /net\nrefused "
	if err != nil || !strings.HasPrefix(string(out), want) || !strings.Contains(string(out), "is not allowed for tenant acme") {
		t.Errorf("%v\n%s", err, out)
	}
}
