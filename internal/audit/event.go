// Package audit keeps the record of who did what: an append-only log of JSON lines, each chained to the one before by
// SHA-256, in files that only root can read. A Log writes it, Verify finds what was changed afterwards, Tail reads it on.
// It decides nothing, knows no request, and sees no secret: callers hand over only the fields that they mean to be read.
package audit

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Decisions of an Event.
const (
	Allow = "allow"
	Deny  = "deny"
)

// Results of an Event; a failure has the kind of its error instead.
const (
	OK    = "ok"
	Begun = "begun" // allowed and about to be done; a line with the same call id says how it ended
)

// Event is what happened, said by whoever saw it. Every field may hold a stranger's bytes: writing escapes and caps them.
type Event struct {
	Key      string `json:"key,omitempty"`    // id of the credential; never its secret
	Role     string `json:"role,omitempty"`   // of the credential
	Source   string `json:"source,omitempty"` // address of the caller
	Tenant   string `json:"tenant,omitempty"`
	Action   string `json:"action"`             // what was asked for, as "Keys.CreateKey", or what took place, as "service.start"
	Object   string `json:"object,omitempty"`   // to what
	Decision string `json:"decision,omitempty"` // Allow or Deny
	Result   string `json:"result,omitempty"`   // OK, Begun, or the kind of the failure
	Call     string `json:"call,omitempty"`     // Paddock-Call-Id
	// Detail is what else is worth knowing, by name.
	Detail map[string]string `json:"detail,omitempty"`
	// Dropped counts the events like this one that were left out before it.
	Dropped int64 `json:"dropped,omitempty"`
}

// Record is a line of the log.
type Record struct {
	Seq  int64     `json:"seq"` // from 1, without gaps
	Time time.Time `json:"time"`
	Event
	Prev string `json:"prev"` // Hash of the line before; Genesis for the first
	Hash string `json:"-"`    // SHA-256 of the line up to its hash field
}

// Bounds on what a line takes from an Event, in bytes.
const (
	maxShort   = 64
	maxObject  = 256
	maxFields  = 16
	maxValue   = 512
	maxDetails = 4 << 10
)

// cleaned is the event as it may stand in a line.
func (e Event) cleaned() Event {
	for _, s := range []*string{&e.Key, &e.Role, &e.Source, &e.Tenant, &e.Action, &e.Decision, &e.Result, &e.Call} {
		*s = Clean(*s, maxShort)
	}
	e.Object = Clean(e.Object, maxObject)
	if len(e.Detail) == 0 {
		e.Detail = nil
		return e
	}
	left, kept := maxDetails, make(map[string]string, min(len(e.Detail), maxFields))
	for _, name := range slices.Sorted(maps.Keys(e.Detail)) {
		value := Clean(e.Detail[name], min(maxValue, left))
		if left -= len(name) + len(value); left < 0 || len(kept) == maxFields {
			kept["…"] = "more was left out"
			break
		}
		kept[Clean(name, maxShort)] = value
	}
	e.Detail = kept
	return e
}

// Clean makes s fit to be read by people and terminals: what is not printable is escaped as Go writes it, and of what is
// longer than limit bytes the beginning is kept, with the number of bytes left out.
func Clean(s string, limit int) string {
	if len(s) <= limit && printable(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		piece := s[i : i+size]
		switch {
		case r == utf8.RuneError && size == 1:
			piece = fmt.Sprintf(`\x%02x`, s[i])
		case !unicode.IsPrint(r):
			piece = strings.Trim(strconv.QuoteRune(r), "'")
		}
		if b.Len()+len(piece) > limit {
			fmt.Fprintf(&b, "…(+%d)", len(s)-i)
			break
		}
		b.WriteString(piece)
	}
	return b.String()
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
