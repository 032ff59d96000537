package router

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// validateBelow is the size up to which the router itself asks whether an input is JSON; larger ones are asked by the
// agent, which has to read them anyway and answers "invalid, not started" alike.
const validateBelow = 256 << 10

// nullInput stands for an empty input. Never written to.
var nullInput = []byte("null")

// statusError is a failure whose HTTP status is more precise than its kind's.
type statusError struct {
	err    *errs.Error
	status int
}

func (e *statusError) Error() string { return e.err.Error() }

func (e *statusError) Unwrap() error { return e.err }

// withStatus gives an invalid request a status of its own: 405, 408, 413 or 415.
func withStatus(status int, e *errs.Error) error { return &statusError{e, status} }

func tooLarge(what string, size, limit int64) error {
	if size < 0 {
		return withStatus(http.StatusRequestEntityTooLarge,
			errs.New(errs.Invalid, "the %s is more than %d bytes, the most that is allowed", what, limit))
	}
	return withStatus(http.StatusRequestEntityTooLarge,
		errs.New(errs.Invalid, "the %s is %d bytes, at most %d are allowed", what, size, limit))
}

// checkInput returns the input of a call: JSON, "null" for an empty one.
func checkInput(input []byte, p *tenant.Policy) ([]byte, error) {
	if len(input) == 0 {
		return nullInput, nil
	}
	if int64(len(input)) > p.InputBytes {
		return nil, tooLarge("input", int64(len(input)), p.InputBytes)
	}
	if !utf8.Valid(input) { // the agent would replace what is not
		return nil, errs.New(errs.Invalid, "the input is not UTF-8 (byte %d)", firstNotUTF8(input))
	}
	if len(input) <= validateBelow && !json.Valid(input) {
		return nil, errs.New(errs.Invalid, "the input is not JSON%s", jsonComplaint(input))
	}
	return input, nil
}

// jsonComplaint says where the input stops being JSON. What it quotes is a single character.
func jsonComplaint(input []byte) string {
	var v any
	err := json.Unmarshal(input, &v)
	if err == nil {
		return ""
	}
	return ": " + complaint(err)
}

// checkSource refuses what cannot be source text.
func checkSource(source []byte, p *tenant.Policy) error {
	switch {
	case int64(len(source)) > p.SourceBytes:
		return tooLarge("source", int64(len(source)), p.SourceBytes)
	case len(bytes.TrimSpace(source)) == 0:
		return errs.New(errs.Invalid, "the source is empty: send JavaScript text")
	case !utf8.Valid(source):
		return errs.New(errs.Invalid, "the source is not UTF-8 (byte %d)", firstNotUTF8(source))
	}
	return nil
}

func firstNotUTF8(b []byte) int {
	at := 0
	for at < len(b) {
		c, n := utf8.DecodeRune(b[at:])
		if c == utf8.RuneError && n == 1 {
			return at
		}
		at += n
	}
	return at
}

// sourceCode makes code out of checked source text.
func sourceCode(source []byte, kind call.Kind, name string) call.Code {
	sum := sha256.Sum256(source)
	return call.Code{Hash: hex.EncodeToString(sum[:]), Kind: kind, Name: name, Source: source}
}

// defaultSourceName is what stack traces call code that has no name.
const defaultSourceName = "script.js"

// checkSourceName bounds what stack traces call the code.
func checkSourceName(name string) (string, error) {
	if name == "" {
		return defaultSourceName, nil
	}
	if len(name) > 128 || !utf8.ValidString(name) {
		return "", errs.New(errs.Invalid, "name: use at most 128 bytes of UTF-8")
	}
	for _, c := range name {
		if c < ' ' || c == 0x7f {
			return "", errs.New(errs.Invalid, "name %q: use no control characters", name)
		}
	}
	return name, nil
}

func parseKind(s string) (call.Kind, error) {
	k, ok := call.ParseKind(s)
	if !ok {
		return "", errs.New(errs.Invalid, "kind %.40q: use auto, function, rule, webtask or action", s)
	}
	return k, nil
}

// parseTimeout reads a caller's time limit; "" is none.
func parseTimeout(s string, p *tenant.Policy) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errs.New(errs.Invalid, "timeout %.40q: use a duration such as 3s or 1m30s, at most %s", s, p.MaxTimeout)
	}
	return d, checkTimeout(d, p)
}

// checkTimeout holds an explicit time limit to the tenant's maximum.
func checkTimeout(d time.Duration, p *tenant.Policy) error {
	if d <= 0 || d > p.MaxTimeout {
		return errs.New(errs.Invalid, "timeout %s: it must be more than 0 and at most %s", d, p.MaxTimeout)
	}
	return nil
}

func parseFlag(name, s string) (bool, error) {
	if s == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, errs.New(errs.Invalid, "%s %.40q: use true or false", name, s)
	}
	return b, nil
}

func parseRevision(name, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, errs.New(errs.Invalid, "%s %.40q: use the revision that a write returned", name, s)
	}
	return n, nil
}
