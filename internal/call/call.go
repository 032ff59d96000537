// Package call holds one invocation as it passes from the router to the controller, the pool and the link: the request,
// what comes back, and the stages. Types only: no I/O.
package call

import (
	"io"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"paddock/internal/tenant"
)

// ID names one invocation: 128 random bits, 32 hex digits. On every answer as Paddock-Call-Id.
type ID string

// ContainerID names one container: 128 random bits, 32 hex digits, never reused.
type ContainerID string

// Kind is the stated shape of a function: what the agent looks for unless it is told.
type Kind string

// The kinds. KindAuto lets the agent look.
const (
	KindAuto     Kind = "auto"
	KindFunction Kind = "function"
	KindRule     Kind = "rule"
	KindWebtask  Kind = "webtask"
	KindAction   Kind = "action"
)

// ParseKind returns the kind named s ("" is auto) and whether there is one.
func ParseKind(s string) (Kind, bool) {
	switch k := Kind(s); k {
	case "":
		return KindAuto, true
	case KindAuto, KindFunction, KindRule, KindWebtask, KindAction:
		return k, true
	}
	return "", false
}

// Code is source text by hash.
type Code struct {
	Hash   string // SHA-256 of Source, hex
	Kind   Kind
	Name   string // for stack traces: "rule.js"
	Source []byte // never changed by anybody; nil where only the hash travels
}

// Header is one header field; order and repetition are kept.
type Header struct{ Name, Value string }

// HTTPHead is the request head that an HTTP-shaped function sees.
type HTTPHead struct {
	Method  string
	URL     string // path after the function's name, with the query
	Headers []Header
}

// Via says how the caller came.
type Via uint8

// ViaValue: input JSON in, value out. ViaHTTP: request in, response out.
const (
	ViaValue Via = iota
	ViaHTTP
)

// Request is one call, checked and admitted. It is read-only for everybody below the router.
type Request struct {
	ID         ID
	Tenant     tenant.ID
	Policy     *tenant.Policy
	Runtime    string // "node"
	Function   string // "" for run
	Version    int64
	Code       Code
	Via        Via
	HTTP       *HTTPHead // with ViaHTTP
	Body       []byte    // whole input; nil if Stream
	Stream     io.Reader // streamed body of an HTTP-shaped call; read by one goroutine, never replayed
	Deadline   time.Time // with monotonic reading; travels between processes as remaining milliseconds
	Fresh      bool      // a container of its own, destroyed before the last byte is released
	Idempotent bool      // may be run again after it may have started
	// CompileOnly: Code is compiled in a container of the tenant's and nothing of it runs. The Result has no value; code that does
	// not compile is an errs.LoadError.
	CompileOnly bool
	Secrets     map[string]string
	SecretsRev  string
	// Pipeline and Steps, if Pipeline is set, run an ordered list of functions in one container; Code then has a hash of the whole list and no
	// source, its kind is what all steps are, Body is {"user": …, "context": …} for rules and the event for actions.
	Pipeline string
	Steps    []Step
	Resume   *Resume           // the pipeline goes on; the pool sets it, on a copy
	Running  *atomic.Int32     // if set, the link keeps the index of the step that runs in it, -1 where it is not known
	Revision int64             // of the store, at which all versions of the call were resolved; 0 = not asked for
	Outside  map[string]string // secrets that are added to requests on their way out; they never enter the sandbox
	Config   map[string]string
	Extra    bool // the tenant's containers on other machines are full: one that is bound for this call is no surplus beside them
	Spill    bool // other machines can be asked: do not wait for room on this one
	AtMost   int  // containers that the tenant may have on this machine; 0 = as many as its policy says
}

// Withhold takes away the secrets that are added to requests outside of the sandbox. Secrets and SecretsRev are replaced, not
// changed: what has other secrets has another revision. So are Steps.
func (r *Request) Withhold(list []tenant.Injection) {
	r.Secrets, r.SecretsRev = withhold(r.Secrets, r.SecretsRev, list)
	if len(list) == 0 || len(r.Steps) == 0 {
		return
	}
	r.Steps = slices.Clone(r.Steps)
	for i := range r.Steps {
		s := &r.Steps[i]
		s.Secrets, s.SecretsRev = withhold(s.Secrets, s.SecretsRev, list)
	}
}

func withhold(secrets map[string]string, revision string, list []tenant.Injection) (map[string]string, string) {
	for _, in := range list {
		if _, ok := secrets[in.Secret]; !ok {
			continue
		}
		secrets = maps.Clone(secrets)
		delete(secrets, in.Secret)
		if revision != "" {
			revision += "-" + in.Secret
		}
	}
	return secrets, revision
}

// LogLine is one line of a call's log. Text is the tenant's bytes: hostile.
type LogLine struct {
	Call      ID // "" = outside any call
	Tenant    tenant.ID
	Function  string
	Container ContainerID
	Level     string // debug, info, warn, error
	Time      time.Time
	Text      string
	Dropped   int64 // bytes dropped before this line
	Step      int   // of a pipeline, from 1; 0 = of none
}

// Sink receives what a call yields before its Result. Methods are called by one goroutine at a time. An error from Head
// or Data means that the caller is gone and cancels the call. Blocking in Data is back-pressure on the container's stream.
type Sink interface {
	Head(status int, headers []Header) error // at most once; HTTP-shaped functions
	Data(p []byte) error                     // after Head; p is valid only during the call
	Log(LogLine)                             // never blocks
}

// StartKind says what the call found.
type StartKind string

// The start kinds.
const (
	StartWarm   StartKind = "warm"   // a container that already was the tenant's
	StartPooled StartKind = "pooled" // a warm container out of the pool
	StartCold   StartKind = "cold"   // one had to be made
	StartThawed StartKind = "thawed" // the tenant's own, frozen before
)

// Stages is where the time went. They do not overlap; Total is all of it as the router saw it.
type Stages struct {
	Queue  time.Duration // waiting for a slot, a container, memory
	Assign time.Duration // binding (latch)
	Load   time.Duration // sending the code; the compile itself is inside Run
	Run    time.Duration // from INVOKE to RESULT
	Total  time.Duration
}

// Result is the answer of a call that did not fail; failures are *errs.Error.
type Result struct {
	Value     []byte // JSON; nil if the answer went through Sink.Head
	Streamed  bool   // the answer went through Sink.Head and Sink.Data
	Container ContainerID
	Start     StartKind
	Isolation tenant.Isolation
	Stages    Stages
	CPU       time.Duration // as the agent says: a hint, never for billing
	Warnings  []string
	Steps     []StepResult // of a pipeline, in their order; with a failure those that had begun, as far as is known
	Resume    *Resume      // with a failure of a pipeline: how it can go on in another container; nil: it cannot
	// OutputBytes is the size of Value, or of what went through Sink.Data.
	OutputBytes int64
}
