package pooltest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
)

// begun counts the lines "begin NAME" of a call: what code has begun to run.
type begun struct {
	mu    sync.Mutex
	times map[string]int
	slow  chan call.ContainerID // where a call is in its slow step; nobody has to listen
}

func (b *begun) Head(int, []call.Header) error { return nil }
func (b *begun) Data([]byte) error             { return nil }

func (b *begun) Log(l call.LogLine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.times[l.Text]++
	if l.Text == "begin slow" {
		select {
		case b.slow <- l.Container:
		default:
		}
	}
}

// rule says that it begins, waits, and adds its name to context.ran.
func rule(name string, wait time.Duration, policy call.FailurePolicy) call.Step {
	source := fmt.Sprintf(`function (user, context, callback) {
		console.log("begin %[1]s");
		setTimeout(() => { context.ran = (context.ran || []).concat("%[1]s"); callback(null, user, context); }, %[2]d);
	}`, name, wait.Milliseconds())
	sum := sha256.Sum256([]byte(source))
	return call.Step{Function: name, Version: 1, OnFailure: policy,
		Code: call.Code{Hash: hex.EncodeToString(sum[:]), Kind: call.KindRule, Name: name + ".js", Source: []byte(source)}}
}

func TestPipelines(t *testing.T) {
	image := testenv.NodeImage(t)
	for name, engine := range map[string]func(*testing.T, *host) pool.Engine{
		"runc": newOCI(tenant.IsolationRunc, "runc"), "gvisor": newOCI(tenant.IsolationGVisor, "runsc"), "docker": newDocker,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, engine, image)
			h.start()
			testPipelines(t, h)
			h.stop()
		})
	}
}

// testPipelines: containers are killed under load while their pipelines are in a step that may be skipped. They go on elsewhere
// within their time; what is finished never runs again.
func testPipelines(t *testing.T, h *host) {
	steps := []call.Step{
		rule("first", 0, call.OnFailureFail), rule("slow", 400*time.Millisecond, call.OnFailureSkip), rule("last", 0, call.OnFailureFail),
	}
	p := tenant.DefaultPolicy()
	p.CallsPerContainer, p.MaxContainers = 8, 3
	pipeline := func() *call.Request {
		req := h.req("acme", "", time.Minute)
		req.Policy, req.Pipeline, req.Steps, req.Body = &p, "login", steps, []byte(`{"user":{},"context":{}}`)
		req.Code = call.Code{Hash: "login", Kind: call.KindRule, Name: "login"}
		return req
	}
	const workers, kills = 8, 3
	stop, slow := make(chan struct{}), make(chan call.ContainerID)
	outcomes := map[string]int{}
	var mu sync.Mutex
	var load sync.WaitGroup
	for range workers {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				req := pipeline()
				mu.Unlock()
				sink := &begun{times: map[string]int{}, slow: slow}
				res, err := h.Do(t.Context(), req, sink)
				outcome := judge(t, req, res, err, sink)
				mu.Lock()
				outcomes[outcome]++
				mu.Unlock()
			}
		})
	}
	for range kills {
		if h.killOne(slow); h.Stats().Resumed > 0 {
			break
		}
	}
	close(stop)
	load.Wait()
	t.Logf("%v, went on elsewhere %d times", outcomes, h.Stats().Resumed)
	if h.Stats().Resumed == 0 || outcomes["skipped"] == 0 {
		t.Errorf("%v, went on elsewhere %d times", outcomes, h.Stats().Resumed)
	}
}

// judge says how a pipeline ended, and what is wrong about it.
func judge(t *testing.T, req *call.Request, res *call.Result, err error, sink *begun) string {
	sink.mu.Lock()
	defer sink.mu.Unlock()
	for what, n := range sink.times {
		if n > 1 {
			t.Errorf("call %s: %q %d times", req.ID, what, n)
		}
	}
	if late := time.Since(req.Deadline); late > 500*time.Millisecond {
		t.Errorf("call %s: answered %s after its deadline", req.ID, late)
	}
	if err != nil {
		if e := errs.From(err); e.Kind != errs.SandboxLost && e.Kind != errs.Limited && e.Kind != errs.NoCapacity {
			t.Errorf("call %s: %v", req.ID, err)
		}
		return string(errs.From(err).Kind)
	}
	var out struct{ Context struct{ Ran []string } }
	if err := json.Unmarshal(res.Value, &out); err != nil || len(res.Steps) != 3 {
		t.Errorf("call %s: %s, %+v, %v", req.ID, res.Value, res.Steps, err)
		return "wrong"
	}
	outcome, want := "ok", []string{"first", "slow", "last"}
	if res.Steps[1].Outcome == call.StepSkipped {
		outcome, want = "skipped", []string{"first", "last"}
	}
	if !slices.Equal(out.Context.Ran, want) || res.Steps[0].Outcome != call.StepOK || res.Steps[2].Outcome != call.StepOK {
		t.Errorf("call %s: ran %v, %+v", req.ID, out.Context.Ran, res.Steps)
	}
	return outcome
}

// killOne kills a container from outside while a call in it is in its slow step, and waits until one is in another container.
func (h *host) killOne(slow <-chan call.ContainerID) {
	h.t.Helper()
	next := func() call.ContainerID {
		select {
		case c := <-slow:
			return c
		case <-time.After(testenv.Patience(30 * time.Second)):
			h.t.Error("no call comes to its slow step")
			return ""
		}
	}
	victim := next()
	if victim == "" {
		return
	}
	if err := h.found(victim).Kill(); err != nil {
		h.t.Error(err)
	}
	for c := next(); c == victim; c = next() {
	}
}
