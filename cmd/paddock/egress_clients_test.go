package main

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"paddock/internal/testenv"
)

// clients calls url with every client that code finds in its sandbox, and answers what each one got or why not.
const clients = `
const http = require('http'), https = require('https'), net = require('net'), tls = require('tls');
const { Worker } = require('worker_threads');
const { execFile } = require('child_process');
const axios = require('axios'), nodeFetch = require('node-fetch'), request = require('request'), rp = require('request-promise');
const WS = require('ws');

const why = (e) => String(e.cause?.message ?? e.message ?? e);
const text = (module, url) => new Promise((ok, no) => module.get(url, (r) => {
	let s = ''; r.on('data', (d) => s += d); r.on('end', () => ok(s)); }).on('error', no));
const raw = (socket, u) => new Promise((ok, no) => {
	let s = '';
	socket.on('data', (d) => s += d).on('end', () => ok(s.split('\r\n\r\n')[1])).on('error', no);
	socket.write('GET ' + u.pathname + ' HTTP/1.0\r\nHost: ' + u.host + '\r\n\r\n');
});
const socket = (S, url) => new Promise((ok, no) => {
	const s = new S(url);
	s.onmessage = (m) => { ok(String(m.data)); s.close(); };
	s.onerror = (e) => no(e.error ?? e);
});
const fetching = 'fetch(URL).then((r) => r.text()).catch((e) => String(e.cause?.message ?? e)).then(';

module.exports = async (url) => {
	const u = new URL(url), secure = u.protocol === 'https:', at = { host: u.hostname, port: u.port || 443 };
	const ws = url.replace('http', 'ws') + '/ws';
	const all = {
		fetch: async () => (await fetch(url)).text(),
		[secure ? 'https' : 'http']: () => text(secure ? https : http, url),
		[secure ? 'tls' : 'net']: () => raw(secure ? tls.connect(at) : net.connect(at), u),
		axios: async () => (await axios.get(url)).data,
		'node-fetch': async () => (await nodeFetch(url)).text(),
		request: () => new Promise((ok, no) => request(url, (e, r, body) => e ? no(e) : ok(body))),
		'request-promise': () => rp(url),
		ws: () => socket(WS, ws),
		WebSocket: () => socket(WebSocket, ws),
		worker: () => new Promise((ok, no) => new Worker(
			fetching.replace('URL', JSON.stringify(url)) + '(s) => require("worker_threads").parentPort.postMessage(s))', { eval: true },
		).on('message', ok).on('error', no)),
		child: () => new Promise((ok, no) => execFile(process.execPath, ['-e',
			fetching.replace('URL', JSON.stringify(url)) + 'console.log)'], (e, out) => e ? no(e) : ok(out.trim()))),
	};
	const got = {};
	for (const [name, ask] of Object.entries(all)) got[name] = await ask().catch((e) => 'failed: ' + why(e));
	return got;
};`

// hello answers over HTTP and, below /ws, with one message on a WebSocket.
func hello(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/ws") {
		w.Header().Set("Connection", "close")
		fmt.Fprint(w, "hello")
		return
	}
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n\x81\x05hello",
		base64.StdEncoding.EncodeToString(sum[:]))
	io.Copy(io.Discard, c)
}

// TestEgressClients: every client that a sandbox has reaches what an operator has named, and says what to do about the rest; a
// secret goes along without coming in.
func TestEgressClients(t *testing.T) {
	for _, isolation := range []string{"runc", "gvisor"} {
		t.Run(isolation, func(t *testing.T) { testEgressClients(t, isolation) })
	}
}

func testEgressClients(t *testing.T, isolation string) {
	const key = "outside-only-4711"
	keyed := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%v %s", r.Header.Get("Authorization") == "Bearer "+key && len(r.Header.Values("Authorization")) == 1, r.URL.Path)
	}))
	plain, secure := httptest.NewServer(http.HandlerFunc(hello)), httptest.NewTLSServer(http.HandlerFunc(hello))
	defer keyed.Close()
	defer plain.Close()
	defer secure.Close()
	addr := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSite(t, "oci", isolation, "--sandbox-ca", ca)
	s.start()
	byName := strings.Replace(addr(plain), "127.0.0.1", "localhost", 1)
	s.cli("tenants", "create", "acme", "--egress", addr(plain), "--egress-private", addr(plain), "--egress-private", byName,
		"--egress-private", addr(secure), "--egress-private", addr(keyed),
		"--inject", addr(keyed)+" Authorization: Bearer {API_KEY}").want(t, 0, "", "")
	s.cliAs(nil, key, "secrets", "set", "API_KEY", "-", "--tenant", "acme").want(t, 0, "", "")
	s.cliAs(nil, "known", "secrets", "set", "OTHER", "-", "--tenant", "acme").want(t, 0, "", "")
	for _, url := range []string{"http://" + addr(plain), "https://" + addr(secure), "http://" + byName} {
		for client, got := range askAll(t, s, url) {
			if got != "hello" {
				t.Errorf("%s: %s got %s", url, client, got)
			}
		}
	}
	for _, url := range []string{"http://127.0.0.1:9999", "https://api.example.com:443"} {
		for client, got := range askAll(t, s, url) {
			if client == "WebSocket" && strings.HasPrefix(got, "failed") {
				continue // by its standard it never says why
			}
			if !strings.Contains(got, "is not allowed for tenant acme: ask the operator to add it to the allow-list") {
				t.Errorf("%s: %s says %q", url, client, got)
			}
		}
	}
	testInjectedSecret(t, s, addr(keyed), key)
	s.stop(syscall.SIGTERM)
}

// testInjectedSecret calls a host that wants a key which the code does not have.
func testInjectedSecret(t *testing.T, s *site, addr, key string) {
	code := source(t, `module.exports = async (url, ctx) => {
		const axios = require('axios');
		const mine = { headers: { authorization: 'Bearer mine' } };
		return [await (await fetch(url + '/a', mine)).text(), (await axios.get(url + '/b', mine)).data,
			await (await fetch(url + '/c', { method: 'POST', body: 'x'.repeat(100000) })).text(), ctx.secrets, { ...process.env }];
	}`)
	r := s.cli("run", code, "-t", "acme", "-i", fmt.Sprintf("%q", "http://"+addr)).want(t, 0, `["true /a","true /b","true /c",{"OTHER":"known"}`, "")
	if strings.Contains(r.out+r.stderr, key) {
		t.Errorf("the secret came out: %s%s", r.out, r.stderr)
	}
	s.cliAs(nil, "another\nline", "secrets", "set", "API_KEY", "-", "--tenant", "acme").want(t, 0, "", "")
	refused := source(t, `module.exports = async (url) => { const r = await fetch(url); return r.status + await r.text() }`)
	testenv.Await(t, "the new secret is in force", func() bool {
		out := s.cli("run", refused, "-t", "acme", "-i", fmt.Sprintf("%q", "http://"+addr)).out
		return strings.Contains(out, `502the secret \"API_KEY\"`) && !strings.Contains(out, "another")
	})
}

// askAll runs clients on url as tenant acme.
func askAll(t *testing.T, s *site, url string) map[string]string {
	t.Helper()
	r := s.cli("run", source(t, clients), "-t", "acme", "-i", fmt.Sprintf("%q", url), "--timeout", "60s").want(t, 0, "", "")
	got := map[string]string{}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || len(got) != 11 {
		t.Fatalf("%d clients in %s: %v", len(got), r.out, err)
	}
	return got
}
