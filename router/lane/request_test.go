package lane

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func anything(string, string) bool { return true }

const usual = "POST /v1/functions/f@3/invoke?timeout=3s&a=%20 HTTP/1.1\r\nHost: localhost:80\r\ncontent-type: application/json\r\n" +
	"Content-Length: 2\r\nX-A: 1\r\nX-A: \t2 \r\nConnection: Keep-Alive\r\n\r\n{}"

func parse(b []byte) (*request, verdict) {
	r := &request{base: new(http.Request)}
	return r, r.read(b, anything)
}

func TestReadsAPlainRequest(t *testing.T) {
	r, v := parse([]byte(usual + "POST /next"))
	if v != plain {
		t.Fatalf("verdict %d", v)
	}
	if r.head+r.length != len(usual) {
		t.Errorf("took %d bytes of %d", r.head+r.length, len(usual))
	}
	same(t, []byte(usual), r)
}

// Whatever it is, what the lane takes is what net/http reads, byte for byte; the lane only takes less.
func same(t *testing.T, b []byte, r *request) {
	t.Helper()
	rest := bytes.NewReader(b)
	buffered := bufio.NewReader(rest)
	want, err := http.ReadRequest(buffered)
	if err != nil {
		t.Fatalf("net/http does not take %q: %v", b, err)
	}
	body, err := io.ReadAll(want.Body)
	if err != nil {
		t.Fatalf("net/http cannot read the body of %q: %v", b, err)
	}
	if left := rest.Len() + buffered.Buffered(); left != len(b)-r.head-r.length {
		t.Errorf("%q: net/http leaves %d bytes, the lane %d", b, left, len(b)-r.head-r.length)
	}
	mine, err := io.ReadAll(r.http.Body)
	if err != nil || !bytes.Equal(mine, body) {
		t.Errorf("body %q (%v), net/http has %q", mine, err, body)
	}
	got := &r.http
	if got.Method != want.Method || *got.URL != *want.URL || got.RequestURI != want.RequestURI || got.Proto != want.Proto ||
		got.Host != want.Host || got.ContentLength != want.ContentLength || got.ProtoAtLeast(1, 1) != want.ProtoAtLeast(1, 1) {
		t.Errorf("read %+v %+v, net/http %+v %+v", got, got.URL, want, want.URL)
	}
	if !reflect.DeepEqual(got.Header, want.Header) {
		t.Errorf("header %q, net/http has %q", got.Header, want.Header)
	}
	if want.Close || len(want.TransferEncoding) > 0 || len(want.Trailer) > 0 {
		t.Errorf("%q: close %v, encoding %q, trailer %q", b, want.Close, want.TransferEncoding, want.Trailer)
	}
}

func FuzzPlainIsHTTP(f *testing.F) {
	f.Add([]byte(usual))
	for _, u := range unusuals() {
		f.Add([]byte(u))
	}
	f.Add([]byte("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"))
	f.Add([]byte("POST /v1/run?a?b;c HTTP/1.1\r\nHost: [::1]:3\r\nContent-Length: 03\r\nX:\r\n\r\nabc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, v := parse(b); v == plain {
			same(t, b, r)
		}
	})
}

// Any number of bytes of a plain request is plain so far.
func TestPartsOfAPlainRequest(t *testing.T) {
	for n := range len(usual) {
		if _, v := parse([]byte(usual[:n])); v != incomplete {
			t.Errorf("after %q: verdict %d", usual[:n], v)
		}
	}
}

// unusuals are requests that the lane has to leave alone.
func unusuals() map[string]string {
	with := func(fields ...string) string {
		return "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n{}"
	}
	line := func(line string) string { return line + "\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}" }
	return map[string]string{
		"another method":      line("GET /a HTTP/1.1"),
		"lower case":          line("post /a HTTP/1.1"),
		"HTTP/1.0":            line("POST /a HTTP/1.0"),
		"HTTP/1.1 with space": line("POST /a HTTP/1.1 "),
		"two spaces":          line("POST /a  HTTP/1.1"),
		"no version":          line("POST /a"),
		"absolute target":     line("POST http://b/a HTTP/1.1"),
		"an escape":           line("POST /a%2fb HTTP/1.1"),
		"a fragment":          line("POST /a#b HTTP/1.1"),
		"a dot in UTF-8":      line("POST /a\u00b7 HTTP/1.1"),
		"a quote in a query":  line("POST /a?b=\" HTTP/1.1"),
		"an empty line first": "\r\n" + line("POST /a HTTP/1.1"),
		"HTTP/2":              "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"TLS":                 "\x16\x03\x01\x02\x00",

		"chunks":                with("Transfer-Encoding: chunked"),
		"length twice":          with("Content-Length: 2"),
		"length in a list":      "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\n{}",
		"a signed length":       "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n{}",
		"a hexadecimal length":  "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0x2\r\n\r\n{}",
		"an empty length":       "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n{}",
		"no length":             "POST /a HTTP/1.1\r\nHost: a\r\n\r\n",
		"a large body":          "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n",
		"no host":               "POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
		"an empty host":         "POST /a HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\n\r\n{}",
		"two hosts":             with("Host: b"),
		"a host with a slash":   "POST /a HTTP/1.1\r\nHost: a/b\r\nContent-Length: 2\r\n\r\n{}",
		"a space in a name":     with("X : 1"),
		"a name in UTF-8":       with("\u00dc: 1"),
		"no name":               with(": 1"),
		"no colon":              with("X"),
		"a folded line":         with("X: 1", " 2"),
		"a bare line feed":      with("X: 1\nY: 2"),
		"a bare return":         with("X: 1\rY: 2"),
		"a NUL":                 with("X: \x00"),
		"a value in Latin-1":    with("X: \xe4"),
		"Connection: close":     with("Connection: close"),
		"Connection: upgrade":   with("Connection: Upgrade", "Upgrade: h2c"),
		"an upgrade":            with("Upgrade: h2c"),
		"an expectation":        with("Expect: 100-continue"),
		"a trailer":             with("Trailer: X"),
		"TE":                    with("TE: trailers"),
		"many fields":           with(strings.Split(strings.Repeat("X: 1,", maxFields)[:5*maxFields-1], ",")...),
		"a long head":           with("X: " + strings.Repeat("x", maxHead)),
		"a long head without":   "POST /" + strings.Repeat("x", maxHead),
		"line feeds, no return": "POST /a HTTP/1.1\nHost: a\nContent-Length: 2\n\n{}" + strings.Repeat(" ", maxHead),
	}
}

func TestLeavesTheUnusualAlone(t *testing.T) {
	for name, text := range unusuals() {
		if _, v := parse([]byte(text)); v != unusual {
			t.Errorf("%s: verdict %d of %.80q", name, v, text)
		}
	}
	r := &request{base: new(http.Request)}
	asked := ""
	v := r.read([]byte(usual), func(method, path string) bool { asked = method + " " + path; return false })
	if v != unusual || asked != "POST /v1/functions/f@3/invoke" {
		t.Errorf("a request for somebody else: verdict %d, asked for %q", v, asked)
	}
}

// Nothing of one request shows in the next.
func TestMemoryIsUsedAgain(t *testing.T) {
	r := &request{base: new(http.Request)}
	if v := r.read([]byte(usual), anything); v != plain {
		t.Fatal(v)
	}
	next := []byte("POST /b HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\nX-A: 9\r\n\r\n1")
	if v := r.read(next, anything); v != plain {
		t.Fatal(v)
	}
	same(t, next, r)
}
