package link_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/pool/link"
)

// sayings are what an agent may say of a pipeline of three steps (fail, skip, last_good); a fuzzed agent says any of them in any
// order, with any index.
var sayings = []func(i int) []byte{
	func(i int) []byte {
		return stepFrame(i, `"outcome":"ok","us":5`, fmt.Sprintf(`{"n":%d}`, i), link.FlagEnd)
	},
	func(i int) []byte { return stepFrame(i, `"outcome":"ok"`, `{`, 0) },
	func(i int) []byte { return stepFrame(i, `"outcome":"skipped","why":"timeout"`, "", link.FlagEnd) },
	func(i int) []byte {
		return stepFrame(i, `"outcome":"last_good","error":{"name":"E"}`, `{"l":1}`, link.FlagEnd)
	},
	func(i int) []byte { return stepFrame(i, `"outcome":"refused","error":{"name":"R"}`, "", link.FlagEnd) },
	func(i int) []byte { return stepFrame(i, `"outcome":"stand_in"`, "", link.FlagEnd) },
	func(i int) []byte { return stepFrame(i, `"outcome":"running","times":[1]`, "", link.FlagEnd) },
	func(i int) []byte {
		return link.AppendPlain(nil, link.TypeData, link.FlagEnd, pipelineStream, []byte(`"d":1}`))
	},
	func(i int) []byte { return link.AppendPlain(nil, link.TypeData, 0, pipelineStream, []byte(`"d":1,`)) },
	func(i int) []byte { return resultFrame(`{"us":[` + strings.Repeat("1,", (i+1)%4) + `1]}`) },
	func(i int) []byte { return resultFrame(`{"us":[]}`) },
	func(i int) []byte {
		return resultFrame(fmt.Sprintf(`{"outcome":"error","step":%d,"us":[1],"error":{}}`, i))
	},
	func(i int) []byte {
		return resultFrame(fmt.Sprintf(`{"outcome":"refused","step":%d,"us":[1],"error":{}}`, i))
	},
	func(i int) []byte { return resultFrame(fmt.Sprintf(`{"outcome":"refused","step":%d,"error":{}}`, i)) },
}

const pipelineStream = 5 // behind four LOADs

func stepFrame(i int, rest, state string, flags uint8) []byte {
	return link.AppendFrame(nil, link.TypeStep, flags, pipelineStream, fmt.Appendf(nil, `{"index":%d,%s}`, i, rest), []byte(state))
}

func resultFrame(head string) []byte {
	return link.AppendFrame(nil, link.TypeResult, link.FlagEnd|link.FlagSettled, pipelineStream, []byte(head), []byte(`{}`))
}

// FuzzPipeline: whatever is said of a pipeline, one that was heard to refuse does not end well and does not go on, and what goes
// on does so behind every step that is over.
func FuzzPipeline(f *testing.F) {
	for _, seed := range [][]byte{{0, 0, 2, 1, 3, 2, 9, 0}, {0, 0, 0, 1, 0, 2, 8, 0}, {4, 0}, {1, 0, 7, 0, 6, 0, 12, 0}, {0, 0, 2, 1, 11, 2}, {10, 0}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		host, agent := socketPair(t)
		c, err := link.NewConn(host, link.Options{Container: "c"})
		if err != nil {
			t.Fatal(err)
		}
		c.Bind("acme", nil)
		steps := []call.Step{step("a"), skipped(step("b")), orElse(step("c"), 2, "x")}
		type answer struct {
			res *call.Result
			err error
		}
		done := make(chan answer, 1)
		go func() {
			res, err := c.Do(context.Background(), pipelineOf(steps...), nil, nil)
			done <- answer{res, err}
		}()
		buf := make([]byte, 1<<16)
		agent.Read(buf)
		var wire []byte
		for i := 0; i+1 < len(said) && i < 64; i += 2 {
			wire = append(wire, sayings[int(said[i])%len(sayings)](int(said[i+1])%5-1)...)
		}
		agent.Write(wire)
		agent.Close()
		a := <-done
		c.Close()
		judge(t, steps, a.res, a.err)
	})
}

func judge(t *testing.T, steps []call.Step, res *call.Result, err error) {
	if res == nil {
		t.Fatalf("nothing is told: %v", err)
	}
	refused := false
	for i, r := range res.Steps {
		refused = refused || r.Outcome == call.StepRefused
		if r.Function != steps[i].Function {
			t.Fatalf("step %d is %s", i, r.Function)
		}
		if (r.Outcome == call.StepOK) != (r.Err == nil) {
			t.Fatalf("%s with error %v", r.Outcome, r.Err)
		}
	}
	if refused && (err == nil || res.Resume != nil || !errs.Is(err, errs.Refused)) {
		t.Fatalf("a refusal became %v, %+v", err, res)
	}
	if r := res.Resume; r != nil && (err == nil || r.Step != len(res.Steps)) {
		t.Fatalf("%d steps are over, it goes on at %d (%v)", len(res.Steps), r.Step, err)
	}
	if err == nil && len(res.Steps) != len(steps) {
		t.Fatalf("%d steps of %d", len(res.Steps), len(steps))
	}
}
