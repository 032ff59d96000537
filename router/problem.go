package router

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// problem is RFC 9457's document with our extension members.
type problem struct {
	Type    string       `json:"type"`
	Title   string       `json:"title"`
	Status  int          `json:"status"`
	Detail  string       `json:"detail"`
	Kind    string       `json:"kind"`
	Started string       `json:"started"`
	Fault   string       `json:"fault"`
	Cause   string       `json:"cause,omitempty"`
	CallID  call.ID      `json:"callId"`
	Thrown  *errs.Thrown `json:"thrown,omitempty"`
	// Of a pipeline.
	Steps    []stepJSON `json:"steps,omitempty"`
	Revision int64      `json:"revision,omitempty"`
	Warnings []string   `json:"warnings,omitempty"`
	Logs     []lineJSON `json:"logs,omitempty"`
}

// problemType is the type member's prefix; the kind follows.
const problemType = "urn:paddock:error:"

// writeProblem answers with err. What only the operator may see stays out; an internal failure shows its id.
func writeProblem(w http.ResponseWriter, r *http.Request, id call.ID, err error) {
	status, body := problemInto(w.Header(), id, err)
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// problemInto fills a header for err, and returns status and document.
func problemInto(h http.Header, id call.ID, err error) (status int, document []byte) {
	e := errs.From(err)
	row := errs.Lookup(e.Kind)
	p := problem{
		Type: problemType + string(e.Kind), Title: row.Title, Status: httpStatus(err), Detail: publicText(e, id),
		Kind: string(e.Kind), Started: string(e.WhetherStarted()), Fault: string(e.WhoseFault()), Cause: e.Cause,
		CallID: id, Thrown: e.Thrown,
	}
	var piped *pipelineError
	if errors.As(err, &piped) {
		p.Steps, p.Revision, p.Warnings, p.Logs = piped.told.Steps, piped.told.Revision, piped.told.Warnings, piped.told.Logs
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if enc.Encode(p) != nil {
		body.Reset()
		body.WriteString("{}\n")
	}
	h["Content-Type"] = problemContentType
	h["Content-Length"] = []string{strconv.Itoa(body.Len())}
	h[hError] = []string{p.Kind}
	h[hStarted] = []string{startedField(e)}
	h["Cache-Control"] = noStore
	switch p.Status {
	case http.StatusUnauthorized:
		h["Www-Authenticate"] = bearerChallenge
	case http.StatusRequestTimeout:
		h["Connection"] = closeField
	}
	if e.RetryAfter > 0 {
		h["Retry-After"] = []string{strconv.FormatInt(retrySeconds(e.RetryAfter), 10)}
	}
	return p.Status, body.Bytes()
}

// Field values that never change; net/http does not write to them.
var (
	problemContentType = []string{"application/problem+json"}
	jsonContentType    = []string{"application/json"}
	bearerChallenge    = []string{`Bearer realm="paddock"`}
	noStore            = []string{"no-store"}
	closeField         = []string{"close"}
)

// httpStatus is the kind's status or the more precise one that err carries.
func httpStatus(err error) int {
	var s *statusError
	if errors.As(err, &s) {
		return s.status
	}
	return errs.From(err).HTTPStatus()
}

// publicText is what the caller reads of e.
func publicText(e *errs.Error, id call.ID) string {
	if e.Kind == errs.Internal {
		return "something went wrong inside Paddock; the operator's log has it under " + string(id)
	}
	if e.Message == "" {
		return errs.Lookup(e.Kind).Title
	}
	return e.Message
}

// startedField is "no" or "maybe": to a caller who wonders whether to repeat, "yes" says no more than "maybe".
func startedField(e *errs.Error) string {
	if e.WhetherStarted() == errs.StartedNo {
		return string(errs.StartedNo)
	}
	return string(errs.StartedMaybe)
}

func retrySeconds(d time.Duration) int64 { return int64(math.Ceil(max(d, time.Second).Seconds())) }
