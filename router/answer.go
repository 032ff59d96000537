package router

import (
	"net/http"
	"strconv"
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
)

// nullValue is the answer of code that returned nothing.
var nullValue = []byte("null")

// Field values of answers, made once: net/http does not write to them.
var (
	startFields = map[call.StartKind][]string{
		call.StartWarm: {"warm"}, call.StartPooled: {"pooled"}, call.StartCold: {"cold"}, call.StartThawed: {"thawed"},
	}
	isolationFields = map[tenant.Isolation][]string{
		tenant.IsolationGVisor: {"gvisor"}, tenant.IsolationRunc: {"runc"},
	}
)

// answer writes the value as JSON, head and body in one write if the body is small.
func (x *exchange) answer(res *call.Result) {
	value := res.Value
	if len(value) == 0 {
		value = nullValue
	}
	x.resultHeaders(res)
	h := x.w.Header()
	h["Content-Type"] = jsonContentType
	var digits [20]byte
	h["Content-Length"] = []string{string(strconv.AppendInt(digits[:0], int64(len(value)), 10))}
	x.w.WriteHeader(http.StatusOK)
	_, _ = x.w.Write(value)
}

// replay writes a collected HTTP-shaped answer.
func (x *exchange) replay(res *call.Result, c *collector) {
	x.resultHeaders(res)
	h := x.w.Header()
	x.router.metrics.HeadersDropped(x.copyAnswerHeaders(c.headers))
	delete(h, "Content-Length")
	if bodyAllowed(x.r.Method, c.status) {
		h["Content-Length"] = []string{strconv.Itoa(len(c.body))}
		if len(c.body) > 0 && h["Content-Type"] == nil {
			h["Content-Type"] = []string{"application/octet-stream"}
		}
	}
	x.w.WriteHeader(c.status)
	if bodyAllowed(x.r.Method, c.status) {
		_, _ = x.w.Write(c.body)
	}
}

// bodyAllowed says whether an answer may have a body.
func bodyAllowed(method string, status int) bool {
	return method != http.MethodHead && status != http.StatusNoContent && status != http.StatusNotModified
}

// resultHeaders says where the call ran and where its time went. res is nil where no container answered.
func (x *exchange) resultHeaders(res *call.Result) {
	if res == nil || x.keyless != nil {
		return
	}
	h := x.w.Header()
	values := [2]string{string(res.Container), serverTiming(&res.Stages)}
	if res.Container != "" {
		h[hContainer] = values[0:1:1]
	}
	h[hTiming] = values[1:2:2]
	if v := startFields[res.Start]; v != nil {
		h[hStart] = v
	}
	if v := isolationFields[res.Isolation]; v != nil {
		h[hIsolation] = v
	}
	for i, w := range res.Warnings {
		if i == maxWarnings {
			break
		}
		h[hWarning] = append(h[hWarning], printable(w, maxWarningBytes))
	}
}

// resultTrailers says behind a streamed answer what resultHeaders says before a collected one. Over HTTP/1.1 it takes an
// answer without Content-Length.
func (x *exchange) resultTrailers(res *call.Result) {
	if x.keyless != nil {
		return
	}
	h := x.w.Header()
	h[http.TrailerPrefix+hTiming] = []string{serverTiming(&res.Stages)}
	h[http.TrailerPrefix+hContainer] = []string{string(res.Container)}
	h[http.TrailerPrefix+hStart] = startFields[res.Start]
	h[http.TrailerPrefix+hIsolation] = isolationFields[res.Isolation]
}

// Bounds on what the agent may warn of.
const (
	maxWarnings     = 5
	maxWarningBytes = 200
)

// printable makes a header value out of a tenant's text.
func printable(s string, limit int) string {
	b := make([]byte, 0, min(len(s), limit))
	for i := 0; i < len(s) && len(b) < limit; i++ {
		if c := s[i]; c >= ' ' && c < 0x7f {
			b = append(b, c)
		} else {
			b = append(b, '?')
		}
	}
	return string(b)
}

// serverTiming is the stages in milliseconds.
func serverTiming(s *call.Stages) string {
	b := make([]byte, 0, 112)
	b = appendStage(b, "queue;dur=", s.Queue)
	b = appendStage(b, ", assign;dur=", s.Assign)
	b = appendStage(b, ", load;dur=", s.Load)
	b = appendStage(b, ", run;dur=", s.Run)
	b = appendStage(b, ", total;dur=", s.Total)
	return string(b)
}

// appendStage appends a duration as milliseconds with three decimals.
func appendStage(b []byte, name string, d time.Duration) []byte {
	b = append(b, name...)
	us := max(d, 0).Microseconds()
	b = strconv.AppendInt(b, us/1000, 10)
	frac := us % 1000
	return append(b, '.', byte('0'+frac/100), byte('0'+frac/10%10), byte('0'+frac%10))
}
