package router

import (
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"paddock/controller/catalog"
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

// originKind is whose the origin is that a function's answer comes from, as a browser sees it: what the function may say of it.
type originKind uint8

const (
	// originShared: all tenants', and that of the API. Nobody's to speak for.
	originShared originKind = iota
	// originStranger: the same, for who calls a public function there. The function decides which other origins may read its answer,
	// not whether with credentials; what it shows in a browser gets an origin of its own.
	originStranger
	// originOwn: a tenant's own host name.
	originOwn
)

// allowedStranger and allowedOwn are fields that the table drops and these origins let pass.
var (
	allowedStranger = map[string]bool{
		"Access-Control-Allow-Origin": true, "Access-Control-Allow-Methods": true, "Access-Control-Allow-Headers": true,
		"Access-Control-Expose-Headers": true, "Access-Control-Max-Age": true,
	}
	allowedOwn = map[string]bool{
		"Access-Control-Allow-Origin": true, "Access-Control-Allow-Methods": true, "Access-Control-Allow-Headers": true,
		"Access-Control-Expose-Headers": true, "Access-Control-Max-Age": true, "Access-Control-Allow-Credentials": true,
		"Set-Cookie": true, "Service-Worker-Allowed": true, "Origin-Agent-Cluster": true,
	}
)

// Fields that the router gives to answers for browsers.
const (
	hTypeOptions    = "X-Content-Type-Options"
	hSecurityPolicy = "Content-Security-Policy"
	hReferrer       = "Referrer-Policy"
)

var (
	nosniff = []string{"nosniff"}
	// sandboxed takes a page out of the origin that it came from: it runs, and reaches nothing of other tenants' there.
	sandboxed  = "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads"
	noReferrer = []string{"no-referrer"}
)

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

// mayPass says whether a canonical field may come from a function at an origin. host is the tenant's own.
func mayPass(name, value string, at originKind, host string) bool {
	switch {
	case !reserved(name):
		return at == originOwn || name != hTypeOptions
	case at == originStranger:
		return allowedStranger[name]
	case at == originOwn && name == "Set-Cookie":
		return ownCookie(value, host)
	case at == originOwn:
		return allowedOwn[name]
	}
	return false
}

// ownCookie says whether a cookie stays at the tenant's own host name: one for a domain above it would go to others' hosts.
func ownCookie(value, host string) bool {
	_, attributes, _ := strings.Cut(value, ";")
	for a := range strings.SplitSeq(attributes, ";") {
		name, domain, _ := strings.Cut(a, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "Domain") {
			continue
		}
		domain = strings.TrimPrefix(strings.TrimSpace(domain), ".")
		if domain != "" && !strings.EqualFold(domain, host) {
			return false
		}
	}
	return true
}

// originKind is where the request came to.
func (x *exchange) originKind() originKind {
	switch {
	case x.host != "":
		return originOwn
	case x.keyless != nil:
		return originStranger
	}
	return originShared
}

// copyAnswerHeaders puts those of a function's header fields that may pass into the answer's head, with what browsers have to be
// told there, and returns how many may not.
func (x *exchange) copyAnswerHeaders(from []call.Header) (dropped int) {
	h, at := x.w.Header(), x.originKind()
	dropped = copyAnswerHeaders(h, from, at, bareHost(x.r.Host))
	if at == originStranger {
		h[hSecurityPolicy] = append(h[hSecurityPolicy], sandboxed) // each policy holds
	}
	if x.keyless != nil && x.keyless.access.Mode == catalog.AccessURLKey { // the address has the key in it
		h[hReferrer] = noReferrer
	}
	return dropped
}

// bareHost is a Host field without its port and its last dot.
func bareHost(host string) string {
	if bare, _, err := net.SplitHostPort(host); err == nil {
		host = bare
	}
	return strings.TrimSuffix(host, ".")
}

// validStatus says whether a function may answer with status: informational ones would take the connection out of step.
func validStatus(status int) bool { return status >= 200 && status <= 599 }

// copyAnswerHeaders puts those of a function's header fields that may pass into h and returns how many may not.
// A Content-Length passes only alone and well-formed; net/http holds the answer to it.
func copyAnswerHeaders(h http.Header, from []call.Header, at originKind, host string) (dropped int) {
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
		if !mayPass(name, f.Value, at, host) || nominated[name] || count > maxAnswerHeaders || size > maxAnswerHeaderBytes {
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
// them. A stranger's Authorization is the function's business, unless it was meant for Paddock; his cookies are where the origin
// is the tenant's own: at the shared one they are somebody else's.
func (x *exchange) requestHeaders() []call.Header {
	r := x.r
	out := make([]call.Header, 0, len(r.Header)+2)
	out = append(out, call.Header{Name: "host", Value: r.Host})
	for name, values := range r.Header {
		switch {
		case x.keyless == nil:
		case name == "Authorization" && len(values) == 1 && !x.bringsKey():
			out = append(out, call.Header{Name: "authorization", Value: values[0]})
		case name == "Cookie" && x.host == "":
			continue
		}
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
