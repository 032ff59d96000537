package router

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"paddock/internal/call"
)

// Bounds of a function's answer head; what is beyond them is dropped.
const (
	maxAnswerHeaders     = 128
	maxAnswerHeaderBytes = 32 << 10
)

// droppedHeaders are fields of a function's answer that would speak for the connection, for the router or for the whole
// origin, which all tenants share. Keys are canonical.
var droppedHeaders = map[string]bool{
	// the connection's
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Proxy-Authenticate": true,
	"Proxy-Authorization": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
	"Http2-Settings": true, "Date": true,
	// the router's
	"Server-Timing": true, "Timing-Allow-Origin": true,
	// the origin's
	"Set-Cookie": true, "Set-Cookie2": true, "Clear-Site-Data": true, "Strict-Transport-Security": true,
	"Public-Key-Pins": true, "Public-Key-Pins-Report-Only": true, "Expect-Ct": true, "Alt-Svc": true, "Nel": true,
	"Report-To": true, "Reporting-Endpoints": true, "Service-Worker-Allowed": true, "Origin-Agent-Cluster": true,
	"Accept-Ch": true, "Critical-Ch": true,
	// orders to a proxy in front
	"X-Sendfile": true, "X-Lighttpd-Send-File": true,
}

// droppedPrefixes, canonical: ours, gRPC's, CORS (an origin's decision), nginx's internal orders.
var droppedPrefixes = []string{"Paddock-", "Grpc-", "Access-Control-", "X-Accel-"}

// reserved says whether a canonical field may not come from a function.
func reserved(name string) bool {
	if droppedHeaders[name] {
		return true
	}
	for _, p := range droppedPrefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// validStatus says whether a function may answer with status: informational ones would take the connection out of step.
func validStatus(status int) bool { return status >= 200 && status <= 599 }

// copyAnswerHeaders puts those of a function's header fields that may pass into h and returns how many may not.
// A Content-Length passes only alone and well-formed; net/http holds the answer to it.
func copyAnswerHeaders(h http.Header, from []call.Header) (dropped int) {
	size, count := 0, 0
	nominated := connectionTokens(from)
	lengths := 0
	for i := range from {
		f := &from[i]
		if !httpguts.ValidHeaderFieldName(f.Name) || !validValue(f.Value) {
			dropped++
			continue
		}
		name := textproto.CanonicalMIMEHeaderKey(f.Name)
		size += len(name) + len(f.Value)
		count++
		if reserved(name) || nominated[name] || count > maxAnswerHeaders || size > maxAnswerHeaderBytes {
			dropped++
			continue
		}
		if name == "Content-Length" {
			lengths++
			if n, err := strconv.ParseUint(f.Value, 10, 62); err != nil || strconv.FormatUint(n, 10) != f.Value {
				lengths++
			}
		}
		h[name] = append(h[name], f.Value)
	}
	if lengths > 1 {
		dropped += len(h["Content-Length"])
		delete(h, "Content-Length")
	}
	return dropped
}

// validValue allows what RFC 9110 does in a field value: no control characters but tab.
func validValue(v string) bool {
	return httpguts.ValidHeaderFieldValue(v) && strings.TrimSpace(v) == v
}

// connectionTokens are the fields that Connection names as the connection's own.
func connectionTokens(from []call.Header) map[string]bool {
	var tokens map[string]bool
	for i := range from {
		if !strings.EqualFold(from[i].Name, "Connection") {
			continue
		}
		for t := range strings.SplitSeq(from[i].Value, ",") {
			if tokens == nil {
				tokens = map[string]bool{}
			}
			tokens[textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(t))] = true
		}
	}
	return tokens
}

// hiddenFromCode are request fields that a function does not get to see: credentials for Paddock itself, what belongs to
// the connection, and a field that the webtask model reserves for the platform.
var hiddenFromCode = map[string]bool{
	"Authorization": true, "Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Proxy-Authenticate": true,
	"Proxy-Authorization": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
	"Http2-Settings": true, "Expect": true, "X-Wt-Params": true,
}

// requestHeaders returns the caller's fields as a function may see them, host first; names are lower-case as node has
// them.
func requestHeaders(r *http.Request) []call.Header {
	out := make([]call.Header, 0, len(r.Header)+2)
	out = append(out, call.Header{Name: "host", Value: r.Host})
	for name, values := range r.Header {
		if hiddenFromCode[name] || strings.HasPrefix(name, "Paddock-") || named(r.Header["Connection"], name) {
			continue
		}
		lower := strings.ToLower(name)
		for _, v := range values {
			out = append(out, call.Header{Name: lower, Value: v})
		}
	}
	if r.ContentLength > 0 && r.Header.Get("Content-Length") == "" {
		out = append(out, call.Header{Name: "content-length", Value: strconv.FormatInt(r.ContentLength, 10)})
	}
	return out
}

// named says whether a Connection field lists name.
func named(connection []string, name string) bool {
	for _, v := range connection {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), name) {
				return true
			}
		}
	}
	return false
}
