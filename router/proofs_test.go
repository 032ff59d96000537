package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
	pb "paddock/proto/paddock/v1"
)

// fakeProver writes down what it is told; fail says how it fails.
type fakeProver struct {
	mu   sync.Mutex
	told []string
	fail error
}

func (p *fakeProver) MarkProven(_ context.Context, t tenant.ID, function string, number int64, hash string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, fmt.Sprintf("%s/%s@%d %.4s", t, function, number, hash))
	return p.fail
}

func (p *fakeProver) heard(t *testing.T, want ...string) {
	t.Helper()
	for end := time.Now().Add(testenv.Patience(20 * time.Second)); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		got := fmt.Sprint(p.told)
		p.mu.Unlock()
		if got == fmt.Sprint(want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the prover heard %s, want %v", got, want)
		}
	}
}

// TestVersionsProveThemselves: what has succeeded ProofCalls times is said once, beside the calls, and said again only where it
// could not be stored.
func TestVersionsProveThemselves(t *testing.T) {
	prover := &fakeProver{}
	g := newRig(t, func(c *Config) { c.Prover = prover })
	loginPipeline(g)
	var fail error
	g.node.do = func(_ context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		res := okResult([]byte("{}"))
		for i, s := range req.Steps {
			res.Steps = append(res.Steps, call.StepResult{Function: s.Function, Version: s.Version, Outcome: call.StepOK})
			if i == 1 {
				res.Steps[1].Outcome = call.StepSkipped
			}
		}
		return res, fail
	}
	echo := func(n int) {
		t.Helper()
		for range n {
			g.do("POST", "/v1/functions/echo/invoke", "1")
		}
	}
	fail = errs.New(errs.UserError, "no")
	echo(ProofCalls)
	fail = nil
	echo(ProofCalls - 1)
	prover.heard(t)
	prover.fail = errors.New("the store is away")
	echo(1)
	prover.heard(t, "acme/echo@3 abab")
	prover.mu.Lock()
	prover.fail = nil
	prover.mu.Unlock()
	echo(ProofCalls)
	prover.heard(t, "acme/echo@3 abab", "acme/echo@3 abab")
	// What is proved costs a look at its record.
	g.cat.mu.Lock()
	g.cat.functions["acme/echo"] = &catalog.VersionView{Number: 3, Hash: "abab", Kind: call.KindAuto, Runtime: "node", Proven: true}
	g.cat.mu.Unlock()
	echo(ProofCalls)
	// Steps of a pipeline prove themselves each, also where it fails later; a skipped one has proved nothing.
	for i := range ProofCalls {
		fail = nil
		if i%2 == 0 {
			fail = errs.New(errs.UserError, "of a later step")
		}
		g.do("POST", "/v1/pipelines/login/invoke", "{}")
	}
	prover.heard(t, "acme/echo@3 abab", "acme/echo@3 abab", "acme/a@3 hash")
	// Drafts prove nothing, whatever they run.
	fail = nil
	g.cat.mu.Lock()
	g.cat.functions["acme/f"] = &catalog.VersionView{Number: 1, Hash: "ffff", Kind: call.KindAuto, Runtime: "node"}
	g.cat.mu.Unlock()
	d := draftCall(&pb.Draft{Steps: []*pb.DraftStep{{Function: "f"}}})
	for range ProofCalls {
		if _, err := pb.NewSandboxClient(g.conn).Invoke(ctxAs(t.Context(), "acme-deploy"), d); err != nil {
			t.Fatal(err)
		}
	}
	if n := g.router.proofs.counts.Len(); n != 0 && n != 1 { // the last of a version's own may still be on its way
		t.Errorf("%d versions are counted", n)
	}
	prover.heard(t, "acme/echo@3 abab", "acme/echo@3 abab", "acme/a@3 hash")
	g.idle()
}

// TestProofsAreBounded: more new versions than can be remembered, and a prover that stands still, cost memory up to a bound.
func TestProofsAreBounded(t *testing.T) {
	p, err := newProofs(&fakeProver{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range proofVersions + 10 {
		v := &catalog.VersionView{Number: int64(i + 1), Hash: "h"}
		for range ProofCalls {
			p.succeeded("acme", "f", v)
		}
	}
	if p.counts.Len() != proofVersions || len(p.due) != proofQueue {
		t.Errorf("%d counted, %d due", p.counts.Len(), len(p.due))
	}
	if n := testing.AllocsPerRun(100, func() { p.succeeded("acme", "f", &catalog.VersionView{Number: proofVersions, Hash: "h"}) }); n > 1 {
		t.Errorf("a success costs %.0f allocations", n)
	}
}

func BenchmarkProofs(b *testing.B) {
	for _, proven := range []bool{false, true} {
		b.Run(fmt.Sprintf("proven=%v", proven), func(b *testing.B) {
			p, err := newProofs(&fakeProver{}, nil)
			if err != nil {
				b.Fatal(err)
			}
			v := &catalog.VersionView{Number: 1, Hash: "h", Proven: proven}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					p.succeeded("acme", "f", v)
				}
			})
		})
	}
}
