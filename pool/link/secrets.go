package link

import (
	"sync"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/redact"
)

// keptRevisions is how many revisions of secrets are still looked for after a newer one came: calls and timers of the old
// may go on.
const keptRevisions = 8

// secrets are the values that calls on this connection carried, looked for in all that the agent says: the tenant's code
// shares one process, so any of it may print any of them. Safe for concurrent use.
type secrets struct {
	mu     sync.Mutex
	known  []secretRevision // newest last
	values *redact.Values   // of all known
	loose  *redact.Stream   // of lines that are no running call's; the reader's
	// blind: secrets went in by a former connection, and no call has said yet which.
	blind bool
}

type secretRevision struct {
	rev    string
	values *redact.Values
}

// learn notes what a call is about to carry.
func (s *secrets) learn(req *call.Request) {
	s.see()
	if req.Pipeline != "" {
		s.learnSteps(req.Steps)
	} else if len(req.Secrets) > 0 {
		s.note(req.SecretsRev, func() *redact.Values { return redact.New(req.Secrets) })
	}
}

// see notes that a call comes, which carries whatever secrets its tenant has for it.
func (s *secrets) see() {
	s.mu.Lock()
	s.blind = false
	s.mu.Unlock()
}

// withheld stands for a line that may hold secrets which nobody here knows.
const withheld = "[withheld: it comes from before the service was started again, and may hold secrets]"

// withholds says whether a line is one of those: what calls of a former connection left behind, and in an adopted container
// whatever is said before a call has told the tenant's secrets.
func (s *secrets) withholds(former bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return former || s.blind
}

// learnSteps notes what the steps of a pipeline carry, as one revision of all of it.
func (s *secrets) learnSteps(steps []call.Step) {
	var room [256]byte
	rev, last := room[:0], ""
	for i := range steps {
		if len(steps[i].Secrets) > 0 && steps[i].SecretsRev != last {
			last = steps[i].SecretsRev
			rev = append(append(rev, last...), ' ')
		}
	}
	if len(rev) == 0 {
		return
	}
	s.note(string(rev), func() *redact.Values {
		var all []*redact.Values
		for i := range steps {
			all = append(all, redact.New(steps[i].Secrets))
		}
		return redact.Join(all...)
	})
}

// note adds a revision, unless it is known.
func (s *secrets) note(rev string, values func() *redact.Values) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.known) - 1; i >= 0; i-- {
		if s.known[i].rev == rev {
			return
		}
	}
	if len(s.known) == keptRevisions {
		s.known = s.known[1:]
	}
	s.known = append(s.known, secretRevision{rev, values()})
	all := make([]*redact.Values, len(s.known))
	for i, k := range s.known {
		all[i] = k.values
	}
	s.values, s.loose = redact.Join(all...), nil
}

// now returns what to look for, nil if there is nothing.
func (s *secrets) now() *redact.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.values
}

// looseLine returns a line that is no running call's, redacted. The reader's only.
func (s *secrets) looseLine(text string) string {
	s.mu.Lock()
	if s.values == nil {
		s.mu.Unlock()
		return text
	}
	if s.loose == nil {
		s.loose = s.values.Stream()
	}
	stream := s.loose
	s.mu.Unlock()
	return stream.Next(text)
}

// redactLine takes secrets out of a line, also one that was cut between this line of the call and the one before. The
// reader's only.
func (c *Conn) redactLine(stream StreamID, text string) string {
	values := c.secrets.now()
	if values == nil {
		return text
	}
	c.mu.Lock()
	x := c.table[stream]
	if x == nil {
		c.mu.Unlock()
		return c.secrets.looseLine(text)
	}
	if x.printed == nil || x.printedOf != values {
		x.printed, x.printedOf = values.Stream(), values
	}
	printed := x.printed
	c.mu.Unlock()
	return printed.Next(text)
}

// redactThrown takes secrets out of an error's texts. They may have been cut short within one.
func (c *Conn) redactThrown(e *errs.Error) {
	values := c.secrets.now()
	if values == nil || e == nil || e.Thrown == nil {
		return
	}
	for _, text := range []*string{&e.Thrown.Name, &e.Thrown.Message, &e.Thrown.Stack, &e.Thrown.Code, &e.Thrown.Excerpt} {
		*text = values.Stream().Next(*text)
	}
}

// redactWarnings takes secrets out of a result's warnings.
func (c *Conn) redactWarnings(r *call.Result) {
	values := c.secrets.now()
	if values == nil {
		return
	}
	for i, w := range r.Warnings {
		r.Warnings[i] = values.Stream().Next(w)
	}
}
