package router

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"paddock/internal/call"
)

func TestHeaderFilter(t *testing.T) {
	var in []call.Header
	for name := range droppedHeaders {
		in = append(in, call.Header{Name: strings.ToLower(name), Value: "x"})
	}
	for _, p := range droppedPrefixes {
		in = append(in, call.Header{Name: strings.ToUpper(p) + "anything", Value: "x"})
	}
	in = append(in,
		call.Header{Name: "X\r\nEvil", Value: "x"}, call.Header{Name: "", Value: "x"}, call.Header{Name: "a b", Value: "x"},
		call.Header{Name: "X-Evil", Value: "x\r\nSet-Cookie: a=b"}, call.Header{Name: "X-Nul", Value: "a\x00b"},
		call.Header{Name: "Connection", Value: "close, X-Hop"}, call.Header{Name: "x-hop", Value: "1"},
		call.Header{Name: "Content-Length", Value: "5"}, call.Header{Name: "content-length", Value: "6"},
		call.Header{Name: "etag", Value: `"v1"`}, call.Header{Name: "Vary", Value: "a"}, call.Header{Name: "vary", Value: "b"})
	h := http.Header{}
	dropped := copyAnswerHeaders(h, in, originShared, "")
	if len(h) != 2 || h.Get("Etag") != `"v1"` || len(h["Vary"]) != 2 {
		t.Errorf("%v", h)
	}
	if dropped != len(in)-3 {
		t.Errorf("%d of %d dropped", dropped, len(in))
	}
	for value, kept := range map[string]bool{"5": true, "05": false, "+5": false, "-1": false, "5 ": false, "x": false, "": false} {
		h := http.Header{}
		copyAnswerHeaders(h, []call.Header{{Name: "Content-Length", Value: value}}, originShared, "")
		if (h.Get("Content-Length") != "") != kept {
			t.Errorf("Content-Length %q: %v", value, h)
		}
	}
	h = http.Header{}
	many := make([]call.Header, 1000)
	for i := range many {
		many[i] = call.Header{Name: "X-Many", Value: strings.Repeat("v", 100)}
	}
	if copyAnswerHeaders(h, many, originShared, ""); len(h["X-Many"]) > maxAnswerHeaders {
		t.Errorf("%d fields", len(h["X-Many"]))
	}
}

// FuzzHeaderFilter: whatever a function sets, the bytes on the wire are one well-formed head without reserved fields.
func FuzzHeaderFilter(f *testing.F) {
	f.Add("X-Own", "yes", "Connection", "x-own")
	f.Add("content-length", "3", "Transfer-Encoding", "chunked")
	f.Add("Set-Cookie", "a=b", "paddock-error", "ok")
	f.Add("A\r\nB", "c\r\n\r\nHTTP/1.1 200 OK", "K", "v\n")
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2 string) {
		in := []call.Header{{Name: n1, Value: v1}, {Name: n2, Value: v2}}
		h := http.Header{}
		dropped := copyAnswerHeaders(h, in, originShared, "")
		kept := 0
		for name, values := range h {
			kept += len(values)
			if reserved(name) || reserved(http.CanonicalHeaderKey(strings.ToLower(name))) {
				t.Fatalf("%q passed", name)
			}
		}
		if kept+dropped != len(in) {
			t.Fatalf("%d kept, %d dropped", kept, dropped)
		}
		var wire bytes.Buffer
		wire.WriteString("HTTP/1.1 200 OK\r\n")
		if err := h.Write(&wire); err != nil {
			t.Fatal(err)
		}
		wire.WriteString("\r\n")
		res, err := http.ReadResponse(bufio.NewReader(&wire), nil)
		if err != nil {
			t.Fatalf("%v: %v", h, err)
		}
		fields := 0
		for _, v := range res.Header {
			fields += len(v)
		}
		if fields != kept {
			t.Fatalf("%d fields on the wire, %d kept: %v %v", fields, kept, res.Header, h)
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("GET", "/v1/functions/a/http/b//c")
	f.Add("POST", "//v1/run")
	f.Add("", "")
	r := &Router{}
	r.cfg.StreamIdle = 1
	if err := r.index(rules); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		if e, p, there := r.tree.match(method, path); e != nil && (there == nil || e.rule == nil || strings.Contains(p[0], "/") &&
			!strings.HasSuffix(e.rule.http, "...}")) {
			t.Fatalf("%s %q: %v %v", method, path, e.rule, p)
		}
	})
}
