package link

import (
	"bytes"
	"encoding/json"
	"strconv"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// Hello is how an agent introduces itself.
type Hello struct {
	Protocol   int    `json:"protocol"`
	Runtime    string `json:"runtime"`    // "node"
	Version    string `json:"version"`    // "v24.…"
	Agent      string `json:"agent"`      // hash of the agent's source
	Reconnects int    `json:"reconnects"` // how often this process has connected before
}

// Welcome tells the agent its limits, in bytes.
type Welcome struct {
	Protocol     int   `json:"protocol"`
	StreamWindow int64 `json:"streamWindow"`
	LogWindow    int64 `json:"logWindow"`
	MaxInput     int64 `json:"maxInput"`
	MaxOutput    int64 `json:"maxOutput"`
	MaxLog       int64 `json:"maxLog"`
	CacheEntries int   `json:"cacheEntries"`
	CacheBytes   int64 `json:"cacheBytes"`
}

// LoadHead is LOAD's head.
type LoadHead struct {
	Hash string `json:"hash"`
	Kind string `json:"kind,omitempty"`
	Name string `json:"name,omitempty"`
}

// InvokeHead is INVOKE's head as an agent reads it; the host writes it by hand (appendInvokeHead).
type InvokeHead struct {
	ID        string            `json:"id"`
	Code      string            `json:"code"`
	MS        int64             `json:"ms"`
	Kind      string            `json:"kind,omitempty"`
	Via       string            `json:"via,omitempty"`
	HTTP      *InvokeHTTP       `json:"http,omitempty"`
	Secrets   map[string]string `json:"secrets,omitempty"`
	Rev       string            `json:"rev,omitempty"`
	Config    map[string]string `json:"config,omitempty"`
	Name      string            `json:"name,omitempty"`
	Tenant    string            `json:"tenant,omitempty"`
	MaxOutput int64             `json:"maxOutput,omitempty"`
	MaxLog    int64             `json:"maxLog,omitempty"`
	// Of a pipeline.
	Pipeline string       `json:"pipeline,omitempty"`
	From     int          `json:"from,omitempty"`    // the first step to run
	Resumed  bool         `json:"resumed,omitempty"` // the body is a state, not the input
	Values   [][2]string  `json:"values,omitempty"`  // name and value of each secret that any set has
	Sets     []InvokeSet  `json:"sets,omitempty"`
	Steps    []InvokeStep `json:"steps,omitempty"`
}

// InvokeSet is the secrets that some of the steps get.
type InvokeSet struct {
	Rev string `json:"rev"`
	Of  []int  `json:"of"` // places in InvokeHead.Values
}

// InvokeStep is a step of a pipeline.
type InvokeStep struct {
	Name     string `json:"name"`
	Code     string `json:"code"`
	MS       int64  `json:"ms,omitempty"`     // of this step alone
	Policy   string `json:"policy,omitempty"` // other than fail
	Fallback string `json:"fallback,omitempty"`
	Rest     bool   `json:"rest,omitempty"` // Code is not to be run: the policy decides
	Set      *int   `json:"set,omitempty"`
}

// InvokeHTTP is the request head of an HTTP-shaped call.
type InvokeHTTP struct {
	Method  string      `json:"method"`
	URL     string      `json:"url"`
	Headers [][2]string `json:"headers"`
}

// ResultHead is RESULT's head. Error is the tenant's own text.
type ResultHead struct {
	Outcome  string     `json:"outcome,omitempty"`
	Error    *ErrorHead `json:"error,omitempty"`
	CPU      float64    `json:"cpu,omitempty"` // microseconds
	Warnings []string   `json:"warnings,omitempty"`
	// Of a pipeline.
	Step int       `json:"step,omitempty"` // that failed or refused
	US   []float64 `json:"us,omitempty"`   // microseconds of the steps that no STEP told of; the last one's is the one that failed
}

// StepHead is STEP's head.
type StepHead struct {
	Index   int        `json:"index"`
	Outcome string     `json:"outcome"`       // ok, skipped, last_good, refused; stand_in: it has failed, and its fallback begins; running: it has run for long
	Why     string     `json:"why,omitempty"` // it failed, with skipped and last_good: an outcome of RESULT; "" is error
	Error   *ErrorHead `json:"error,omitempty"`
	US      float64    `json:"us,omitempty"`
	Times   []float64  `json:"times,omitempty"` // with running: of the steps before it that no STEP told of
}

const (
	stepRunning = "running"
	stepStandIn = "stand_in"
)

// ErrorHead is an error as the agent reports it. Code and StatusCode are whatever the tenant's error object carried.
type ErrorHead struct {
	Name       string          `json:"name,omitempty"`
	Message    string          `json:"message,omitempty"`
	Stack      string          `json:"stack,omitempty"`
	Code       json.RawMessage `json:"code,omitempty"`
	StatusCode json.RawMessage `json:"statusCode,omitempty"`
	Denied     bool            `json:"denied,omitempty"`
	Line       int             `json:"line,omitempty"`
	Column     int             `json:"column,omitempty"`
	Excerpt    string          `json:"excerpt,omitempty"`
}

// CodeHead is the head of LOADED, LOAD_FAILED and NOT_LOADED.
type CodeHead struct {
	Hash    string     `json:"hash"`
	Error   *ErrorHead `json:"error,omitempty"`
	Missing []string   `json:"missing,omitempty"` // NOT_LOADED of a pipeline that lacks more than one
}

// ResponseHead is HEAD's head.
type ResponseHead struct {
	Status  int         `json:"status"`
	Headers [][2]string `json:"headers"`
}

// LogHead is LOG's head. T is milliseconds since 1970 by the agent's clock.
type LogHead struct {
	Level   string  `json:"level"`
	T       float64 `json:"t"`
	Dropped int64   `json:"dropped,omitempty"`
	Step    *int    `json:"step,omitempty"`   // of a pipeline
	Former  bool    `json:"former,omitempty"` // of a call of a former connection
}

// parseHead decodes a head into v. A head is a JSON object; members of another type than v's are a breach, unknown ones
// are for a later protocol to explain.
func parseHead(t Type, head []byte, v any) error {
	if trimmed := bytes.TrimLeft(head, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return breach("%v whose head is no JSON object", t)
	}
	if err := json.Unmarshal(head, v); err != nil {
		return breach("%v whose head does not fit: %v", t, err)
	}
	return nil
}

// parseResult decodes RESULT's head. What nearly every answer carries, {} or {"cpu":123}, takes no reflection.
func parseResult(head []byte) (ResultHead, error) {
	if cpu, ok := plainResult(head); ok {
		return ResultHead{CPU: float64(cpu)}, nil
	}
	var h ResultHead
	err := parseHead(TypeResult, head, &h)
	return h, err
}

const (
	cpuOnly = `{"cpu":`
	cpuOK   = `{"outcome":"ok","cpu":`
)

func plainResult(head []byte) (cpu int64, ok bool) {
	if len(head) == 2 && head[0] == '{' && head[1] == '}' {
		return 0, true
	}
	digits := head
	switch {
	case bytes.HasPrefix(head, []byte(cpuOnly)):
		digits = head[len(cpuOnly):]
	case bytes.HasPrefix(head, []byte(cpuOK)):
		digits = head[len(cpuOK):]
	default:
		return 0, false
	}
	last := len(digits) - 1
	if last < 1 || last > 15 || digits[last] != '}' || digits[0] == '0' && last > 1 {
		return 0, false
	}
	for _, b := range digits[:last] {
		if b < '0' || b > '9' {
			return 0, false
		}
		cpu = cpu*10 + int64(b-'0')
	}
	return cpu, true
}

// invokeLimits are the limits of one call, and the link's defaults that need not be repeated.
type invokeLimits struct{ maxOutput, maxLog int64 }

// appendInvokeHead appends INVOKE's head for req with ms milliseconds left.
func appendInvokeHead(dst []byte, req *call.Request, ms int64, mine, welcome invokeLimits) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendString(dst, string(req.ID))
	dst = append(dst, `,"code":`...)
	dst = appendString(dst, req.Code.Hash)
	dst = append(dst, `,"ms":`...)
	dst = strconv.AppendInt(dst, ms, 10)
	if req.Code.Kind != "" && req.Code.Kind != call.KindAuto {
		dst = append(dst, `,"kind":`...)
		dst = appendString(dst, string(req.Code.Kind))
	}
	if req.Via == call.ViaHTTP {
		dst = append(dst, `,"via":"http"`...)
	}
	if req.HTTP != nil {
		dst = appendHTTP(append(dst, `,"http":`...), req.HTTP)
	}
	if len(req.Secrets) > 0 {
		dst = appendMap(append(dst, `,"secrets":`...), req.Secrets)
	}
	dst = appendOptional(dst, `,"rev":`, req.SecretsRev)
	if len(req.Config) > 0 {
		dst = appendMap(append(dst, `,"config":`...), req.Config)
	}
	dst = appendOptional(dst, `,"name":`, req.Function)
	dst = appendOptional(dst, `,"tenant":`, string(req.Tenant))
	if mine.maxOutput != welcome.maxOutput {
		dst = strconv.AppendInt(append(dst, `,"maxOutput":`...), mine.maxOutput, 10)
	}
	if mine.maxLog != welcome.maxLog {
		dst = strconv.AppendInt(append(dst, `,"maxLog":`...), mine.maxLog, 10)
	}
	if req.Pipeline != "" {
		dst = appendPipeline(dst, req)
	}
	return append(dst, '}')
}

func appendOptional(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendString(append(dst, name...), value)
}

func appendHTTP(dst []byte, h *call.HTTPHead) []byte {
	dst = appendString(append(dst, `{"method":`...), h.Method)
	dst = appendString(append(dst, `,"url":`...), h.URL)
	dst = append(dst, `,"headers":[`...)
	for i, f := range h.Headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(append(dst, '['), f.Name)
		dst = appendString(append(dst, ','), f.Value)
		dst = append(dst, ']')
	}
	return append(dst, "]}"...)
}

func appendLoadHead(dst []byte, c *call.Code) []byte {
	dst = appendString(append(dst, `{"hash":`...), c.Hash)
	if c.Kind != "" {
		dst = appendString(append(dst, `,"kind":`...), string(c.Kind))
	}
	dst = appendOptional(dst, `,"name":`, c.Name)
	return append(dst, '}')
}

// Bounds of what a tenant's error may carry, in bytes.
const (
	maxErrorName    = 256
	maxErrorMessage = 8 << 10
	maxErrorStack   = 16 << 10
	maxErrorExcerpt = 4 << 10
)

// thrown converts an agent's error, bounding every field. nil gives an empty one.
func (h *ErrorHead) thrown() *errs.Thrown {
	if h == nil {
		return &errs.Thrown{}
	}
	t := &errs.Thrown{
		Name: clip(h.Name, maxErrorName), Message: clip(h.Message, maxErrorMessage), Stack: clip(h.Stack, maxErrorStack),
		Denied: h.Denied, Line: max(h.Line, 0), Column: max(h.Column, 0), Excerpt: clip(h.Excerpt, maxErrorExcerpt),
	}
	var code any
	if json.Unmarshal(h.Code, &code) == nil {
		switch c := code.(type) {
		case string:
			t.Code = clip(c, maxErrorName)
		case float64:
			t.Code = strconv.FormatFloat(c, 'g', -1, 64)
		}
	}
	var status float64
	if json.Unmarshal(h.StatusCode, &status) == nil && status >= 100 && status <= 999 {
		t.StatusCode = int(status)
	}
	return t
}
