package lane

import (
	"bytes"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
)

// Bounds of a plain request.
const (
	maxHead    = 8 << 10
	maxRequest = 64 << 10
	maxFields  = 48
)

// verdict is what is known of a request after some of its bytes.
type verdict uint8

const (
	incomplete verdict = iota // plain so far
	plain                     // whole
	unusual                   // not for the lane
)

// request is a plain request, in memory that is used again for the next one of its connection.
type request struct {
	base   *http.Request // what all requests of a connection have in common
	http   http.Request
	url    url.URL
	header http.Header
	values [maxFields]string // of which header's slices are made
	body   body

	head   int // bytes of the head
	length int // of the body
}

// body is a request's body, which is all there.
type body struct{ bytes.Reader }

// Close implements io.Closer.
func (*body) Close() error { return nil }

var (
	start   = []byte("POST /")
	headEnd = []byte("\r\n\r\n")
)

// read looks at what has come of a request and fills r if it is whole. takes is asked for its method and path.
func (r *request) read(b []byte, takes func(method, path string) bool) verdict {
	if n := min(len(b), len(start)); !bytes.Equal(b[:n], start[:n]) {
		return unusual
	}
	end := bytes.Index(b[:min(len(b), maxHead)], headEnd)
	if end < 0 {
		if len(b) >= maxHead {
			return unusual
		}
		return incomplete
	}
	r.head = end + len(headEnd)
	text := string(b[:end+2]) // of which all names and values are parts
	line, fields, _ := strings.Cut(text, "\r\n")
	if !r.readLine(line) || !takes(http.MethodPost, r.url.Path) || !r.readFields(fields) {
		return unusual
	}
	if len(b) < r.head+r.length {
		return incomplete
	}
	r.body.Reset(b[r.head : r.head+r.length])
	return plain
}

// readLine reads "POST /path?query HTTP/1.1".
func (r *request) readLine(line string) bool {
	target, proto, ok := strings.Cut(line[len("POST "):], " ")
	if !ok || proto != "HTTP/1.1" {
		return false
	}
	path, query, asked := strings.Cut(target, "?")
	if !all(path, inPath) || !all(query, inQuery) {
		return false
	}
	r.url = url.URL{Path: path, RawQuery: query, ForceQuery: asked && query == ""}
	r.http = *r.base
	r.http.Method, r.http.URL, r.http.RequestURI = http.MethodPost, &r.url, target
	r.http.Proto, r.http.ProtoMajor, r.http.ProtoMinor = proto, 1, 1
	return true
}

// readFields reads the header fields, each with its line end.
func (r *request) readFields(text string) bool {
	if r.header == nil {
		r.header = make(http.Header, 8)
	}
	clear(r.header)
	r.http.Header, r.http.Body = r.header, &r.body
	r.length = -1
	for n := 0; text != ""; n++ {
		var line string
		line, text, _ = strings.Cut(text, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		if !ok || n == maxFields || name == "" || !all(name, inToken) {
			return false
		}
		value = strings.Trim(value, " \t")
		if !all(value, inValue) || !r.field(n, textproto.CanonicalMIMEHeaderKey(name), value) {
			return false
		}
	}
	r.http.ContentLength = int64(r.length)
	return r.length >= 0 && r.http.Host != ""
}

// field takes the nth field, and says whether a plain request may have it.
func (r *request) field(n int, name, value string) bool {
	switch name {
	case "Host":
		if r.http.Host != "" || !all(value, inHost) {
			return false
		}
		r.http.Host = value
		return true // net/http keeps it out of the header, too
	case "Content-Length":
		if r.length >= 0 {
			return false
		}
		length, ok := number(value)
		if !ok || r.head+length > maxRequest {
			return false
		}
		r.length = length
	case "Connection":
		if !strings.EqualFold(value, "keep-alive") {
			return false
		}
	case "Transfer-Encoding", "Trailer", "Te", "Expect", "Upgrade", "Http2-Settings", "Proxy-Connection", "Keep-Alive":
		return false
	}
	if old := r.header[name]; old != nil {
		r.header[name] = append(old, value)
		return true
	}
	r.values[n] = value
	r.header[name] = r.values[n : n+1 : n+1]
	return true
}

// number reads digits, as many as a plain length has.
func number(s string) (n int, ok bool) {
	if s == "" || len(s) > 6 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

// class is a set of characters.
type class [256]bool

func all(s string, c *class) bool {
	for i := range len(s) {
		if !c[s[i]] {
			return false
		}
	}
	return true
}

func classOf(chars string, letters, visible bool) *class {
	var c class
	for b := range 256 {
		alnum := '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
		c[b] = letters && alnum || visible && b > ' ' && b < 0x7f || strings.IndexByte(chars, byte(b)) >= 0
	}
	return &c
}

var (
	inToken = classOf("!#$%&'*+-.^_`|~", true, false)
	inValue = classOf(" \t", true, true)
	inPath  = classOf("/-._~@", true, false) // what no two readers escape differently
	inQuery = classOf("-._~@%&=+,;:!*'()/$", true, false)
	inHost  = classOf("-._:[]", true, false)
)

var _ io.ReadCloser = (*body)(nil)
