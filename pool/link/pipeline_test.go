package link_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/pool/link"
	"paddock/pool/link/linktest"
)

// step makes a step of a function of this name, whose source is the name as well unless there is another.
func step(name string, source ...string) call.Step {
	return call.Step{Function: name, Version: 3, Code: codeOf(strings.Join(append(source, "// "+name), "\n"))}
}

func skipped(s call.Step) call.Step {
	s.OnFailure = call.OnFailureSkip
	return s
}

func within(d time.Duration, s call.Step) call.Step {
	s.Timeout = d
	return s
}

func orElse(s call.Step, version int64, source string) call.Step {
	s.OnFailure = call.OnFailureLastGood
	s.Fallback = &call.Fallback{Version: version, Code: codeOf(source)}
	return s
}

func pipelineOf(steps ...call.Step) *call.Request {
	r := request(`{"user":{"id":"u"},"context":{}}`)
	r.Function, r.Pipeline, r.Steps = "", "login", steps
	r.Code = call.Code{Hash: strings.Repeat("ab", 32), Kind: call.KindRule}
	return r
}

// outcomes shows results in short: "first ok, second skipped: user_error".
func outcomes(all []call.StepResult) string {
	var list []string
	for _, r := range all {
		s := fmt.Sprintf("%s %s", r.Function, r.Outcome)
		if r.Fallback != 0 {
			s += fmt.Sprintf(" %d", r.Fallback)
		}
		if r.Err != nil {
			s += ": " + string(r.Err.Kind)
		}
		list = append(list, s)
	}
	return strings.Join(list, ", ")
}

func forge(k *linktest.Call, head any, body string) {
	b, _ := json.Marshal(head)
	k.Forge(link.TypeStep, link.FlagEnd, b, []byte(body))
}

func TestPipelineHead(t *testing.T) {
	var got link.InvokeHead
	var body string
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
		got, body = k.InvokeHead, string(k.Body())
		k.Forge(link.TypeResult, link.FlagEnd|link.FlagSettled, []byte(`{"outcome":"invalid","error":{}}`), nil)
		return nil, linktest.ErrSilent
	}})
	all := map[string]string{"ALL": "a\"ll", "KEY": "one"}
	a, b, d := step("a"), skipped(within(1500*time.Millisecond, step("b"))), orElse(step("c"), 2, "before")
	a.Secrets, a.SecretsRev = all, "1"
	b.Secrets, b.SecretsRev = map[string]string{"ALL": "a\"ll", "KEY": "two"}, "2"
	d.Secrets, d.SecretsRev = all, "1"
	d.Rest = errs.New(errs.Limited, "rests")
	r := pipelineOf(a, b, d, step("d"))
	_, _ = c.Do(context.Background(), r, nil, nil)
	zero, one := 0, 1
	got.MS = 0
	want := link.InvokeHead{
		ID: string(r.ID), Code: r.Code.Hash, Kind: "rule", Tenant: "acme", Pipeline: "login",
		Values: [][2]string{{"ALL", "a\"ll"}, {"KEY", "one"}, {"KEY", "two"}},
		Sets:   []link.InvokeSet{{Rev: "1", Of: []int{0, 1}}, {Rev: "2", Of: []int{0, 2}}},
		Steps: []link.InvokeStep{
			{Name: "a", Code: a.Code.Hash, Set: &zero},
			{Name: "b", Code: b.Code.Hash, MS: 1500, Policy: "skip", Set: &one},
			{Name: "c", Code: d.Code.Hash, Policy: "last_good", Fallback: d.Fallback.Code.Hash, Rest: true, Set: &zero},
			{Name: "d", Code: r.Steps[3].Code.Hash},
		},
	}
	if !reflect.DeepEqual(got, want) || body != string(r.Body) {
		t.Errorf("head\n%+v, want\n%+v; body %s", got, want, body)
	}
	r.Resume = &call.Resume{Step: 1, State: []byte(`{"s":1}`)}
	_, _ = c.Do(context.Background(), r, nil, nil)
	if got.From != 1 || !got.Resumed || body != `{"s":1}` {
		t.Errorf("from %d, resumed %v, %s", got.From, got.Resumed, body)
	}
	r.Code.Kind = call.KindAction
	_, _ = c.Do(context.Background(), r, nil, nil)
	if body != `{"input":`+string(r.Body)+`,"effects":{"s":1}}` {
		t.Error(body)
	}
}

// TestPipelineStory: what the agent says of steps, in all its forms.
func TestPipelineStory(t *testing.T) {
	boom := link.ErrorHead{Name: "TypeError", Message: "boom"}
	denied := link.ErrorHead{Name: "Mine", Message: "no"}
	steps := []call.Step{step("a"), skipped(step("b")), orElse(step("c"), 2, "x"), step("d"), step("e")}
	for name, tt := range map[string]struct {
		say  func(k *linktest.Call)
		head link.ResultHead
		want string
		kind errs.Kind
	}{
		"well": {func(k *linktest.Call) {
			forge(k, link.StepHead{Index: 0, Outcome: "ok", US: 5}, `{"n":1}`)
			forge(k, link.StepHead{Index: 1, Outcome: "skipped", Why: "timeout", Error: &boom}, "")
			forge(k, link.StepHead{Index: 2, Outcome: "last_good", Error: &boom}, `{"n":2}`)
		}, link.ResultHead{US: []float64{7, 8}}, "a ok, b skipped: timeout, c last_good 2: user_error, d ok, e ok", ""},
		"one that ran long": {func(k *linktest.Call) {
			forge(k, link.StepHead{Index: 0, Outcome: "ok"}, `{}`)
			forge(k, link.StepHead{Index: 1, Outcome: "ok"}, `{}`)
			forge(k, link.StepHead{Index: 2, Outcome: "ok"}, `{}`)
			forge(k, link.StepHead{Index: 4, Outcome: "running", Times: []float64{7}}, "")
		}, link.ResultHead{US: []float64{1e9}}, "a ok, b ok, c ok, d ok, e ok", ""},
		"a failure": {func(*linktest.Call) {}, link.ResultHead{Outcome: "error", Step: 0, US: []float64{3}, Error: &boom},
			"a failed: user_error", errs.UserError},
		"a failure that nobody was told of": {func(k *linktest.Call) {
			forge(k, link.StepHead{Index: 0, Outcome: "ok"}, `{}`)
			forge(k, link.StepHead{Index: 1, Outcome: "ok"}, `{}`)
			forge(k, link.StepHead{Index: 2, Outcome: "ok"}, `{}`)
		}, link.ResultHead{Outcome: "timeout", Step: 4, US: []float64{3, 4}, Error: &boom},
			"a ok, b ok, c ok, d ok, e failed: timeout", errs.Timeout},
		"a refusal": {func(k *linktest.Call) {
			forge(k, link.StepHead{Index: 0, Outcome: "ok"}, `{}`)
		}, link.ResultHead{Outcome: "refused", Step: 1, US: []float64{3}, Error: &denied}, "a ok, b refused: refused", errs.Refused},
		"a refusal within a state": {func(k *linktest.Call) {
			forge(k, link.StepHead{Index: 0, Outcome: "ok"}, `{}`)
			forge(k, link.StepHead{Index: 1, Outcome: "skipped", Error: &boom}, "")
			b, _ := json.Marshal(link.StepHead{Index: 2, Outcome: "ok"})
			k.Forge(link.TypeStep, 0, b, []byte("{"))
		}, link.ResultHead{Outcome: "refused", Step: 1, Error: &denied}, "a ok, b refused: refused, c ok", errs.Refused},
		"a refusal told before": {func(k *linktest.Call) {
			forge(k, link.StepHead{Index: 0, Outcome: "refused", Error: &denied}, "")
		}, link.ResultHead{Outcome: "error", Step: 0, US: []float64{3}, Error: &boom}, "a refused: refused", errs.Refused},
		"does not compile": {func(*linktest.Call) {}, link.ResultHead{Outcome: "load_error", US: []float64{0}, Error: &boom},
			"a failed: load_error", errs.LoadError},
		"too large": {func(*linktest.Call) {}, link.ResultHead{Outcome: "output_too_large", US: []float64{0}},
			"a failed: output_too_large", errs.OutputTooLarge},
		"not an input": {func(*linktest.Call) {}, link.ResultHead{Outcome: "invalid", Error: &boom}, "", errs.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(ctx context.Context, k *linktest.Call) ([]byte, error) {
				tt.say(k)
				b, _ := json.Marshal(tt.head)
				k.Forge(link.TypeResult, link.FlagEnd|link.FlagSettled, b, nil)
				<-k.Agent.Done()
				return nil, nil
			}})
			res, err := c.Do(context.Background(), pipelineOf(steps...), nil, nil)
			if got := errs.KindOf(err); got != tt.kind || outcomes(res.Steps) != tt.want || c.Err() != nil {
				t.Errorf("%v: %s, want %s (%v)", err, outcomes(res.Steps), tt.want, c.Err())
			}
			if errs.Is(err, errs.Refused) && (errs.From(err).Thrown.Message != "no" || !errs.From(err).Thrown.Denied) {
				t.Errorf("%+v", errs.From(err).Thrown)
			}
			if res.Resume != nil {
				t.Errorf("goes on: %+v", res.Resume)
			}
		})
	}
}

// TestPipelineLost: where a pipeline can go on whose container ended, and that it cannot where a refusal may be lost.
func TestPipelineLost(t *testing.T) {
	steps := []call.Step{step("a"), skipped(step("b")), step("c")}
	ok := func(k *linktest.Call, i int) {
		forge(k, link.StepHead{Index: i, Outcome: "ok"}, fmt.Sprintf(`{"n":%d}`, i))
	}
	for name, tt := range map[string]struct {
		say   func(k *linktest.Call, c *link.Conn)
		want  string // steps that are over
		step  int    // -1: does not go on
		state string
		kind  errs.Kind
	}{
		"in the first":        {func(*linktest.Call, *link.Conn) {}, "", 0, "", errs.SandboxLost},
		"in the second":       {func(k *linktest.Call, _ *link.Conn) { ok(k, 0) }, "a ok", 1, `{"n":0}`, errs.SandboxLost},
		"behind what is told": {func(k *linktest.Call, _ *link.Conn) { ok(k, 0); ok(k, 1) }, "a ok, b ok", -1, "", errs.SandboxLost},
		"within a state": {func(k *linktest.Call, _ *link.Conn) {
			b, _ := json.Marshal(link.StepHead{Index: 0, Outcome: "ok"})
			k.Forge(link.TypeStep, 0, b, []byte("{"))
		}, "a ok", -1, "", errs.SandboxLost},
		"after a refusal": {func(k *linktest.Call, _ *link.Conn) {
			ok(k, 0)
			forge(k, link.StepHead{Index: 1, Outcome: "refused", Error: &link.ErrorHead{Name: "AccessDenied", Message: "no"}}, "")
		}, "a ok, b refused: refused", -1, "", errs.Refused},
		"by a breach": {func(k *linktest.Call, _ *link.Conn) {
			ok(k, 0)
			k.Agent.Raw([]byte{0xff, 0xff, 0xff, 0xff, 0, 0})
		}, "a ok, b failed: sandbox_lost", -1, "", errs.SandboxLost},
		"by the host": {func(k *linktest.Call, c *link.Conn) {
			ok(k, 0)
			go func() {
				_ = c.Ping(context.Background()) // it has read the STEP
				c.Close()
			}()
		}, "a ok, b failed: sandbox_lost", -1, "", errs.SandboxLost},
	} {
		t.Run(name, func(t *testing.T) {
			var c *link.Conn
			c, _ = pair(t, link.Options{}, linktest.Options{Handler: func(ctx context.Context, k *linktest.Call) ([]byte, error) {
				tt.say(k, c)
				if name != "by the host" {
					go k.Agent.Close()
				}
				<-k.Agent.Done()
				return nil, nil
			}})
			res, err := c.Do(context.Background(), pipelineOf(steps...), nil, nil)
			if errs.KindOf(err) != tt.kind || outcomes(res.Steps) != tt.want {
				t.Errorf("%v: %s, want %s", err, outcomes(res.Steps), tt.want)
			}
			switch r := res.Resume; {
			case tt.step < 0 && r != nil:
				t.Errorf("goes on at %+v", r)
			case tt.step >= 0 && (r == nil || r.Step != tt.step || string(r.State) != tt.state):
				t.Errorf("goes on at %+v", r)
			}
		})
	}
}

// TestPipelineStandIn: where a container was lost in a step's stand-in, the pipeline is told so, and from when the stand-in's time
// counts.
func TestPipelineStandIn(t *testing.T) {
	rests := orElse(step("a"), 2, "before")
	rests.Rest = errs.New(errs.Limited, "rests")
	for name, tt := range map[string]struct {
		step  call.Step
		heads []link.StepHead
		want  bool
		cause string
	}{
		"in the version":             {orElse(step("a"), 2, "before"), nil, false, "crashed"},
		"in the stand-in":            {orElse(step("a"), 2, "before"), []link.StepHead{{Outcome: "stand_in"}}, true, "crashed"},
		"of a version at rest":       {rests, nil, true, "crashed"},
		"said twice":                 {orElse(step("a"), 2, "before"), []link.StepHead{{Outcome: "stand_in"}, {Outcome: "stand_in"}}, false, "protocol"},
		"where there is none":        {skipped(step("a")), []link.StepHead{{Outcome: "stand_in"}}, false, "protocol"},
		"of a step that is not next": {orElse(step("a"), 2, "before"), []link.StepHead{{Index: 1, Outcome: "stand_in"}}, false, "protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
				for _, h := range tt.heads {
					forge(k, h, "")
				}
				go k.Agent.Close()
				<-k.Agent.Done()
				return nil, nil
			}})
			res, err := c.Do(context.Background(), pipelineOf(tt.step, skipped(step("b"))), nil, nil)
			if e := errs.From(err); e == nil || e.Kind != errs.SandboxLost || (e.Cause == "protocol") != (tt.cause == "protocol") {
				t.Errorf("%v", err)
			}
			if (res.Resume != nil) != (tt.cause != "protocol") || res.Resume != nil && res.Resume.StandIn != tt.want {
				t.Errorf("%+v", res.Resume)
			}
		})
	}
}

// TestPipelineDeadline: the call's time is over; a refusal that was heard of stands, and the step that ran is named.
func TestPipelineDeadline(t *testing.T) {
	for name, refuses := range map[string]bool{"": false, "after a refusal": true} {
		t.Run(name, func(t *testing.T) {
			c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(ctx context.Context, k *linktest.Call) ([]byte, error) {
				forge(k, link.StepHead{Index: 0, Outcome: "ok"}, `{}`)
				if refuses {
					forge(k, link.StepHead{Index: 1, Outcome: "refused", Error: &link.ErrorHead{Name: "AccessDenied"}}, "")
				}
				<-ctx.Done()
				return nil, nil
			}})
			r := pipelineOf(step("a"), skipped(step("b")))
			r.Deadline = time.Now().Add(300 * time.Millisecond)
			res, err := c.Do(context.Background(), r, nil, nil)
			want, kind := "a ok, b failed: timeout", errs.Timeout
			if refuses {
				want, kind = "a ok, b refused: refused", errs.Refused
			}
			if errs.KindOf(err) != kind || outcomes(res.Steps) != want || res.Resume != nil {
				t.Errorf("%v: %s, %+v", err, outcomes(res.Steps), res.Resume)
			}
		})
	}
}

// TestPipelineStuck: a step holds the event loop past its time. Its container is given up, and what it had said is read first.
func TestPipelineStuck(t *testing.T) {
	c, a := pair(t, link.Options{}, linktest.Options{Handler: func(ctx context.Context, k *linktest.Call) ([]byte, error) {
		forge(k, link.StepHead{Index: 0, Outcome: "ok"}, `{"n":1}`)
		k.Agent.Stick()
		<-k.Agent.Done()
		return nil, nil
	}})
	go func() {
		<-c.Tainted()
		if c.TaintReason() != link.TaintStuck {
			t.Error(c.TaintReason())
		}
		a.Close() // as the pool kills it
	}()
	res, err := c.Do(context.Background(), pipelineOf(step("a"), skipped(within(100*time.Millisecond, step("b"))), step("c")), nil, nil)
	if !errs.Is(err, errs.Timeout) || outcomes(res.Steps) != "a ok" || res.Resume == nil || res.Resume.Step != 1 ||
		string(res.Resume.State) != `{"n":1}` {
		t.Errorf("%v: %s, %+v", err, outcomes(res.Steps), res.Resume)
	}
}

// TestPipelineSlow: an agent that answers PING is trusted with its steps' time.
func TestPipelineSlow(t *testing.T) {
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(ctx context.Context, k *linktest.Call) ([]byte, error) {
		time.Sleep(700 * time.Millisecond) // past the time of the step, the slack and the wait for PONG
		forge(k, link.StepHead{Index: 0, Outcome: "skipped", Why: "timeout"}, "")
		k.Forge(link.TypeResult, link.FlagEnd|link.FlagSettled, []byte(`{"us":[]}`), []byte("{}"))
		<-k.Agent.Done()
		return nil, nil
	}})
	res, err := c.Do(context.Background(), pipelineOf(skipped(within(50*time.Millisecond, step("a")))), nil, nil)
	if err != nil || outcomes(res.Steps) != "a skipped: timeout" || c.TaintReason() != "" {
		t.Errorf("%v: %s, %s", err, outcomes(res.Steps), c.TaintReason())
	}
}

// TestPipelineForgotten: the agent lacks some of the code, and gets that once more.
func TestPipelineForgotten(t *testing.T) {
	loads := map[string]int{}
	asked := 0
	a, b := step("a"), orElse(step("b"), 2, "before")
	o := linktest.Options{Load: func(_ *linktest.Agent, h link.LoadHead, _ []byte) *linktest.Thrown {
		loads[h.Hash]++
		return nil
	}}
	o.Handler = func(_ context.Context, k *linktest.Call) ([]byte, error) {
		if asked++; asked == 1 {
			head, _ := json.Marshal(link.CodeHead{Hash: b.Code.Hash, Missing: []string{b.Code.Hash, b.Fallback.Code.Hash}})
			k.Forge(link.TypeNotLoaded, 0, head, nil)
			return nil, linktest.ErrSilent
		}
		k.Forge(link.TypeStep, link.FlagEnd, []byte(`{"index":0,"outcome":"ok"}`), []byte("{}"))
		k.Forge(link.TypeResult, link.FlagEnd|link.FlagSettled, []byte(`{"us":[1]}`), []byte(`{"ok":1}`))
		return nil, linktest.ErrSilent
	}
	c, _ := pair(t, link.Options{}, o)
	res, err := c.Do(context.Background(), pipelineOf(a, b), nil, nil)
	if err != nil || string(res.Value) != `{"ok":1}` {
		t.Fatalf("%v %v", res, err)
	}
	want := map[string]int{a.Code.Hash: 1, b.Code.Hash: 2, b.Fallback.Code.Hash: 2}
	if !reflect.DeepEqual(loads, want) {
		t.Errorf("%v, want %v", loads, want)
	}
	big := pipelineOf(step("huge", strings.Repeat("x", 40<<20)))
	if _, err := c.Do(context.Background(), big, nil, nil); !errs.Is(err, errs.Invalid) {
		t.Error(err)
	}
}

// TestPipelineSecrets: values of any step's secrets are taken out of what any of them says.
func TestPipelineSecrets(t *testing.T) {
	logs := &recorder{}
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
		k.Forge(link.TypeLog, 0, []byte(`{"level":"info","t":1,"step":1}`), []byte("hunter2hunter2 and sesame-open"))
		forge(k, link.StepHead{Index: 0, Outcome: "skipped", Error: &link.ErrorHead{Name: "Error", Message: "sesame-open"}}, "")
		b, _ := json.Marshal(link.ResultHead{Outcome: "refused", Step: 1, US: []float64{1}, Error: &link.ErrorHead{Message: "hunter2hunter2"}})
		k.Forge(link.TypeResult, link.FlagEnd|link.FlagSettled, b, nil)
		return nil, linktest.ErrSilent
	}})
	a, b := skipped(step("a")), step("b")
	a.Secrets, a.SecretsRev = map[string]string{"KEY": "hunter2hunter2"}, "1"
	b.Secrets, b.SecretsRev = map[string]string{"KEY": "sesame-open"}, "2"
	res, err := c.Do(context.Background(), pipelineOf(a, b), logs, nil)
	var e *errs.Error
	if !errors.As(err, &e) || e.Thrown.Message != "[secret]" || res.Steps[0].Err.Thrown.Message != "[secret]" {
		t.Errorf("%+v %+v", e, res.Steps)
	}
	if len(logs.logs) != 1 || logs.logs[0].Text != "[secret] and [secret]" || logs.logs[0].Function != "b" || logs.logs[0].Step != 2 {
		t.Errorf("%+v", logs.logs)
	}
}
