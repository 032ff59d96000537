package router

import (
	"log/slog"
	"maps"
	"net/http"
	"net/textproto"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
)

// exchange is one HTTP request with its answer. Used by the handler's goroutine.
type exchange struct {
	router *Router
	w      http.ResponseWriter
	r      *http.Request
	id     call.ID
	began  time.Time
	host   tenant.ID // whose own the host name is; "": nobody's, the shared origin
	rule   *rule
	params params
	who    identity.Identity
	// keyless is set where there is no key: the caller is a stranger to the function's tenant.
	keyless *keyless
	// cut says that the answer's head has gone: a failure from now on can only break the connection.
	cut bool
	// bodyRead says that the request's body was read to its end.
	bodyRead bool
}

// Canonical names of the fields that are read or written on every call.
const (
	hCallID      = "Paddock-Call-Id"
	hError       = "Paddock-Error"
	hStarted     = "Paddock-Started"
	hContainer   = "Paddock-Container"
	hIsolation   = "Paddock-Isolation"
	hStart       = "Paddock-Start"
	hWarning     = "Paddock-Warning"
	hTenant      = "Paddock-Tenant"
	hTimeout     = "Paddock-Timeout"
	hFresh       = "Paddock-Fresh"
	hIdempotent  = "Paddock-Idempotent"
	hMinRevision = "Paddock-Min-Revision"
	hTiming      = "Server-Timing"
)

// ServeHTTP is the one way in for HTTP: route, credential, handler, and a problem document for whatever fails.
func (r *Router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	host, own := r.cfg.Catalogue.TenantOfHost(req.Host)
	if !own && isGRPC(req) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // streams last as long as they last
		if r.unaryRPC[req.URL.Path] {
			var over func()
			req, over = awaitMessageHTTP(w, req, r.messageTime)
			defer over()
		}
		r.onHTTP.ServeHTTP(w, req)
		return
	}
	x := exchange{router: r, w: w, r: req, host: host, id: newCallID(), began: time.Now()}
	defer x.recovered()
	h := w.Header()
	h[hCallID] = []string{string(x.id)}
	if !own {
		h[hTypeOptions] = nosniff
	}
	if doubtfulEnd(req) {
		w.Header()["Connection"] = closeField
	}
	if err := x.serve(); err != nil {
		x.fail(err)
	}
	if !x.bodyRead && req.ContentLength != 0 {
		// net/http now reads a part of what is left, so that the connection can be used again: not for ever.
		setReadDeadline(w, time.Now().Add(r.discardFor))
	}
}

// doubtfulEnd says whether another reader, a proxy in front, may see this request end elsewhere, so that what follows on the
// connection must not be taken for the next one: chunks beside which a length may have stood, and HTTP/1.0, where chunks may
// have been stated and do not count. net/http has dropped the fields by now that would tell. RFC 9112, section 6.1.
func doubtfulEnd(r *http.Request) bool {
	return r.ProtoMajor == 1 && (len(r.TransferEncoding) > 0 || r.ProtoMinor == 0)
}

// isGRPC says whether a request is gRPC that came to the HTTP listener. It passes the same choke point as on its own.
func isGRPC(r *http.Request) bool {
	const grpcType = "application/grpc"
	if r.ProtoMajor != 2 || r.Method != http.MethodPost {
		return false
	}
	ct := r.Header.Get("Content-Type")
	return ct == grpcType || strings.HasPrefix(ct, grpcType+"+") || strings.HasPrefix(ct, grpcType+";")
}

func (x *exchange) serve() error {
	tree := &x.router.tree
	if x.host != "" {
		tree = &x.router.ownTree
	}
	e, p, there := tree.match(x.r.Method, x.r.URL.EscapedPath())
	switch {
	case there == nil && x.host != "":
		return x.turnAway(&x.who, errNotPublic())
	case there == nil:
		return x.turnAway(&x.who, errs.New(errs.NotFound, "there is nothing at %.200q: GET /openapi.json lists what there is", x.r.URL.Path))
	case e == nil:
		x.w.Header()["Allow"] = []string{strings.Join(slices.Sorted(maps.Keys(there)), ", ")}
		return x.turnAway(&x.who, withStatus(http.StatusMethodNotAllowed,
			errs.New(errs.Invalid, "%.20q is not a method of %.200q", x.r.Method, x.r.URL.Path)))
	}
	x.rule, x.params = e.rule, p
	if !e.rule.call && x.r.ContentLength != 0 {
		// Where nobody reads the body, net/http does as soon as the answer's head goes out.
		setReadDeadline(x.w, time.Now().Add(x.router.discardFor))
	}
	who, why, err := x.identify()
	if why != "" {
		x.router.auditDenied(e.rule, &who, x.r.RemoteAddr, x.id, why, err)
	}
	if err != nil {
		return x.turnAway(&who, x.router.auth.slowDown(err, x.r.RemoteAddr))
	}
	x.who = who
	if err := x.router.takeTurn(x.r.Context(), e.rule, &who, x.r.RemoteAddr); err != nil {
		return err
	}
	return e.serve(x)
}

// turnAway answers a request that goes no further, not too often.
func (x *exchange) turnAway(who *identity.Identity, err error) error {
	return x.router.turnAway(x.r.Context(), who, x.r.RemoteAddr, err)
}

// httpCredential takes the credential out of a request. A repeated field counts as malformed: two readers might choose
// differently.
func httpCredential(r *http.Request) credential {
	return credential{
		authorization: single(r.Header["Authorization"]),
		tenant:        single(r.Header[hTenant]),
	}
}

// single returns the value of a field that may stand once.
func single(values []string) string {
	switch len(values) {
	case 0:
		return ""
	case 1:
		return values[0]
	}
	return "\x00repeated"
}

// fail answers with a problem document, or cuts the answer where its head has already gone.
func (x *exchange) fail(err error) {
	if x.cut {
		panic(http.ErrAbortHandler)
	}
	x.logInternal(err)
	if x.rule != nil && x.rule.call && x.w.Header()[hTiming] == nil { // no container took it
		x.w.Header()[hTiming] = []string{serverTiming(&call.Stages{Total: time.Since(x.began)})}
	}
	if x.keyless != nil {
		hideFromStrangers(x.w.Header())
		err = toStranger(err)
	}
	writeProblem(x.w, x.r, x.id, err)
}

// logInternal leaves in the log what the caller is not told.
func (x *exchange) logInternal(err error) {
	if e := errs.From(err); e.Kind == errs.Internal && (x.rule == nil || !x.rule.call) {
		x.router.log.LogAttrs(x.r.Context(), slog.LevelError, "request failed", slog.String("call", string(x.id)),
			slog.String("method", x.r.Method), slog.String("path", x.r.URL.Path), slog.String("err", err.Error()))
	}
}

// recovered keeps a panic in one request from ending the process, and leaves its stack in the log.
func (x *exchange) recovered() {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	x.router.log.LogAttrs(x.r.Context(), slog.LevelError, "panic", slog.String("call", string(x.id)),
		slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
	if x.cut {
		panic(http.ErrAbortHandler)
	}
	writeProblem(x.w, x.r, x.id, errs.From(errAbandoned))
}

// header returns a field that may stand once; name is canonical.
func (x *exchange) header(name string) string {
	if v := x.r.Header[name]; len(v) == 1 {
		return v[0]
	}
	return single(x.r.Header[name])
}

// contentType returns the body's media type without parameters, lower-case.
func (x *exchange) contentType() string {
	ct := x.header("Content-Type")
	for i := range len(ct) {
		if ct[i] == ';' {
			ct = ct[:i]
			break
		}
	}
	return lowerASCII(textproto.TrimString(ct))
}

func lowerASCII(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if 'A' <= b[j] && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
