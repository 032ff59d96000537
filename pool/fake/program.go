package fake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/link"
	"paddock/pool/link/linktest"
)

// stage is where a program runs: a call over a socket or in memory.
type stage interface {
	body() []byte
	secrets() map[string]string
	head(status int) error
	data([]byte) error
	log(text string)
	stick()  // the event loop stands still from now on
	breach() // send what no honest agent sends
	gone() <-chan struct{}
}

// thrown is what a program throws.
type thrown string

func (t thrown) Error() string { return string(t) }

// denied is how a step of a pipeline denies access.
type denied string

func (d denied) Error() string { return string(d) }

// run executes the source of a call. Its steps stand one to a line or after semicolons:
//
//	value JSON    answer that; without any, the answer is the input
//	id            answer the container's id as a JSON string
//	secrets       answer the secrets that came with the call
//	sleep D       wait; CANCEL ends it
//	gate NAME     wait for Engine.Open; CANCEL ends it
//	hang          never end, though CANCEL is answered
//	spin          while(1){}: nothing in the container answers any more
//	throw TEXT    fail
//	deny TEXT     deny access: in a pipeline
//	crash         the process ends with code 1
//	oom heap pids the process ends, and counters or wait status say why
//	dying         likewise, out of memory; the connection ends at once and the process a moment later
//	breach        break the protocol
//	refuse        a fork is refused at the limit; the program goes on
//	child         a child of it is killed for want of memory; likewise
//	then OP       goes on when the answer has left, without having ended: spin, stall D (spin, and come to an end), crash or sleep D; in
//	              memory alone
//	burn          burn CPU from now on, also after the answer
//	loop          likewise, in a loop that never ends; in memory alone
//	stream A B C  answer over HTTP with these pieces
//	log TEXT      write a line
//	nonsense      does not compile
//	compiling OP  while it compiles crash, oom or spin happens
func (c *Container) run(ctx context.Context, s stage, source string) ([]byte, error) {
	answer := []byte(nil)
	given := false
	for _, line := range strings.FieldsFunc(source, func(r rune) bool { return r == '\n' || r == ';' }) {
		op, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch op {
		case "value":
			answer, given = []byte(arg), true
		case "id":
			answer, given = []byte(`"`+string(c.spec.ID)+`"`), true
		case "secrets":
			b, err := json.Marshal(s.secrets())
			if err != nil {
				return nil, err
			}
			answer, given = b, true
		case "stream":
			given = true
			if err := c.stream(s, strings.Fields(arg)); err != nil {
				return nil, err
			}
		case "log":
			s.log(arg)
		case "throw":
			return nil, thrown(arg)
		case "deny":
			return nil, denied(arg)
		case "burn":
			c.Burn()
		case "loop":
			c.Burn()
			defer s.stick()
		case "refuse":
			c.RefuseFork()
		case "child":
			c.KillChild()
		case "compiling", "then":
		default:
			if err := c.suffer(ctx, s, op, arg); err != nil {
				return nil, err
			}
		}
	}
	if !given {
		answer = bytes.Clone(s.body())
	}
	return answer, nil
}

func (c *Container) stream(s stage, pieces []string) error {
	if err := s.head(200); err != nil {
		return err
	}
	for _, p := range pieces {
		if err := s.data([]byte(p)); err != nil {
			return err
		}
	}
	return nil
}

// suffer executes the steps that wait or end the container.
func (c *Container) suffer(ctx context.Context, s stage, op, arg string) error {
	switch op {
	case "sleep":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return err
		}
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	case "gate":
		select {
		case <-c.e.gate(arg):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	case "spin":
		s.stick()
	case "breach":
		s.breach()
	case "crash":
		c.end(pool.Exit{Code: 1, Known: true})
	case "oom":
		c.end(pool.Exit{Code: -1, Signal: 9, OOMKilled: true, Known: true})
	case "dying":
		c.KillChild()
		c.hangUp()
		time.Sleep(100 * time.Millisecond)
		c.end(pool.Exit{Code: -1, Signal: 9, OOMKilled: true, Known: true})
	case "heap":
		c.end(pool.Exit{Code: -1, Signal: 6, HeapAbort: true, Known: true})
	case "pids":
		c.end(pool.Exit{Code: 2, PidsHit: true, Known: true})
	case "hang":
	default:
		return thrown("unknown step " + op)
	}
	<-c.ctx.Done() // what ends a container, or hangs, does not go on
	<-s.gone()     // nor does it say anything more
	return c.ctx.Err()
}

// compile is what becomes of source when it is loaded: nil, or why it does not compile. What ends the container does not return
// before that.
func (c *Container) compile(s stage, source string) *link.ErrorHead {
	for i, line := range strings.Split(source, "\n") {
		op, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch op {
		case "nonsense":
			return &link.ErrorHead{
				Name: "SyntaxError", Message: "Unexpected nonsense", Line: i + 1, Column: strings.Index(line, op) + 1, Excerpt: line,
			}
		case "compiling":
			_ = c.suffer(context.Background(), s, arg, "")
		}
	}
	return nil
}

// load is the linktest.Options.Load of the agent, which reads nothing meanwhile.
func (c *Container) load(a *linktest.Agent, _ link.LoadHead, source []byte) *linktest.Thrown {
	if h := c.compile(socketStage{&linktest.Call{Agent: a}}, string(source)); h != nil {
		return &linktest.Thrown{ErrorHead: *h}
	}
	return nil
}

// handle is the linktest.Handler of the agent.
func (c *Container) handle(ctx context.Context, k *linktest.Call) ([]byte, error) {
	c.e.began(c, call.ID(k.ID), tenant.ID(k.Tenant))
	value, err := c.run(ctx, socketStage{k}, string(k.Source))
	var t thrown
	if errors.As(err, &t) {
		err = &linktest.Thrown{ErrorHead: link.ErrorHead{Name: "Error", Message: string(t)}}
	}
	return value, err
}

type socketStage struct{ k *linktest.Call }

func (s socketStage) gone() <-chan struct{}      { return s.k.Agent.Done() }
func (s socketStage) body() []byte               { return s.k.Body() }
func (s socketStage) secrets() map[string]string { return s.k.Secrets }
func (s socketStage) head(status int) error      { return s.k.Head(status) }
func (s socketStage) data(p []byte) error        { return s.k.Data(p) }
func (s socketStage) log(text string)            { s.k.Log("info", text) }
func (s socketStage) stick()                     { s.k.Agent.Stick() }
func (s socketStage) breach()                    { s.k.Agent.Raw([]byte{0xff, 0xff, 0xff, 0xff, 0, 0}) }
