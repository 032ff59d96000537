package link_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/pool/link"
)

func rule(body string) string { return "function (user, context, callback) { " + body + " }" }

const next = "callback(null, user, context);"

// TestNodePipeline: the node agent and the host agree on pipelines.
func TestNodePipeline(t *testing.T) {
	c := nodeAgent(t, link.Options{})
	mark := func(n int) string { return rule(fmt.Sprintf("(user.seen = user.seen || []).push(%d); %s", n, next)) }
	for name, tt := range map[string]struct {
		steps []call.Step
		value string
		want  string
		kind  errs.Kind
	}{
		"five": {[]call.Step{step("a", mark(1)), step("b", mark(2)), step("c", mark(3)), step("d", mark(4)), step("e", mark(5))},
			`{"user":{"id":"u","seen":[1,2,3,4,5]},"context":{}}`, "a ok, b ok, c ok, d ok, e ok", ""},
		"none": {nil, `{"user":{"id":"u"},"context":{}}`, "", ""},
		"policies": {[]call.Step{skipped(step("a", rule("user.bad = 1; throw new Error('x')"))), step("b", mark(2)),
			orElse(step("c", rule("callback(new Error('y'))")), 7, mark(3)), skipped(within(20*time.Millisecond, step("d", rule("")))), step("e", mark(5))},
			`{"user":{"id":"u","seen":[2,3,5]},"context":{}}`, "a skipped: user_error, b ok, c last_good 7: user_error, d skipped: timeout, e ok", ""},
		"a refusal": {[]call.Step{step("a", mark(1)), skipped(step("b", rule("callback(new UnauthorizedError('no'))"))), step("c", mark(3))},
			"", "a ok, b refused: refused", errs.Refused},
		"a late refusal": {[]call.Step{skipped(step("a", rule("setTimeout(() => callback(new UnauthorizedError('no')), 20); throw 1"))),
			step("b", mark(2)), step("c", rule("setTimeout(() => callback(null), 200)"))}, "", "a refused: refused, b ok", errs.Refused},
		"a failure": {[]call.Step{step("a", mark(1)), step("b", rule("context.self = context; "+next)), step("c", mark(3))},
			"", "a ok, b ok, c failed: user_error", errs.UserError}, // objects are shared: the last one has to write them down
		"not JSON": {[]call.Step{step("a", rule("user.n = 1n; "+next)), skipped(step("b", mark(2)))}, "", "a failed: user_error", errs.UserError},
		"does not compile": {[]call.Step{step("a", mark(1)), skipped(step("b", "function (user, context, callback) { oops(} }")), step("c", mark(3))},
			`{"user":{"id":"u","seen":[1,3]},"context":{}}`, "a ok, b skipped: load_error, c ok", ""},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := c.Do(context.Background(), pipelineOf(tt.steps...), nil, nil)
			if errs.KindOf(err) != tt.kind || outcomes(res.Steps) != tt.want || string(res.Value) != tt.value {
				t.Errorf("%v: %s, %s; want %s", err, outcomes(res.Steps), res.Value, tt.want)
			}
		})
	}
	if c.Err() != nil {
		t.Fatal(c.Err())
	}
	t.Run("2 MiB", func(t *testing.T) {
		grow := rule("context.n = (context.n || 0) + 1; " + next)
		r := pipelineOf(skipped(step("a", grow)), step("b", grow), skipped(step("c", grow)), step("d", grow))
		pad := strings.Repeat("x", 2<<20)
		r.Body = []byte(`{"user":{},"context":{"pad":"` + pad + `"}}`)
		res, err := c.Do(context.Background(), r, nil, nil)
		if want := `{"user":{},"context":{"pad":"` + pad + `","n":4}}`; err != nil || string(res.Value) != want {
			t.Errorf("%v: %d bytes, want %d; %v", err, len(res.Value), len(want), c.Err())
		}
	})
	t.Run("an input that is none", func(t *testing.T) {
		r := pipelineOf(step("a", mark(1)))
		r.Body = []byte("[]")
		res, err := c.Do(context.Background(), r, nil, nil)
		if e := wantKind(t, err, errs.Invalid, errs.StartedNo); !strings.Contains(e.Message, `{"user": {…}, "context": {…}}`) || len(res.Steps) != 0 {
			t.Error(e.Message)
		}
	})
	t.Run("forgotten code", func(t *testing.T) {
		for i := range 300 { // more than the agent keeps
			r := nodeCall(fmt.Sprintf("() => %d", i), "1")
			if _, err := c.Do(context.Background(), r, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		res, err := c.Do(context.Background(), pipelineOf(step("a", mark(1)), step("b", mark(2))), nil, nil)
		if err != nil || c.Stats().LoadsRepeated == 0 {
			t.Errorf("%v, %+v, %+v", err, res, c.Stats())
		}
	})
	t.Run("no time for all of it", func(t *testing.T) {
		r := pipelineOf(step("a", mark(1)), step("b", rule("")), step("c", mark(3)))
		r.Deadline = time.Now().Add(2 * time.Second)
		res, err := c.Do(context.Background(), r, nil, nil)
		if !errs.Is(err, errs.Timeout) || outcomes(res.Steps) != "a ok, b failed: timeout" {
			t.Errorf("%v: %s", err, outcomes(res.Steps))
		}
	})
}

// TestNodePipelineStuck: a rule that holds the event loop is found out by the host; what it had said before counts.
func TestNodePipelineStuck(t *testing.T) {
	for name, tt := range map[string]struct {
		source string
		kind   errs.Kind
		want   string
	}{
		"":                {rule("while (true);"), errs.Timeout, "a ok"},
		"after a refusal": {rule("callback(new UnauthorizedError('no')); while (true);"), errs.Refused, "a ok, b refused: refused"},
	} {
		t.Run(name, func(t *testing.T) {
			c, kill := killableAgent(t, link.Options{})
			go func() {
				select {
				case <-c.Tainted():
					kill()
				case <-c.Done():
				}
			}()
			steps := []call.Step{step("a", rule(next)), skipped(within(200*time.Millisecond, step("b", tt.source))), step("c", rule(next))}
			res, err := c.Do(context.Background(), pipelineOf(steps...), nil, nil)
			if !errs.Is(err, tt.kind) || outcomes(res.Steps) != tt.want {
				t.Errorf("%v: %s", err, outcomes(res.Steps))
			}
			if goesOn := res.Resume != nil; goesOn != (tt.kind == errs.Timeout) || goesOn && res.Resume.Step != 1 {
				t.Errorf("goes on: %+v", res.Resume)
			}
		})
	}
}
