package router

import (
	"context"
	"log/slog"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
)

const (
	// ProofCalls is how often a version has to succeed, through one router, to stand in for a later one (call.OnFailureLastGood).
	ProofCalls = 100
	// proofVersions bounds the versions that are counted at a time. Of one that is forgotten it is counted anew.
	proofVersions = 16384
	// proofQueue bounds the versions that wait to be written down. One that finds no room comes again ProofCalls successes later.
	proofQueue = 256
)

// Prover notes that a version, told by its number and its code's hash, has succeeded often enough; *catalog.Service is one. It
// may be told again, and of versions that are gone.
type Prover interface {
	MarkProven(ctx context.Context, t tenant.ID, function string, number int64, hash string) error
}

// proofs counts the successes of versions that have not proved themselves yet, and has the Prover told of those that have. A call
// costs a look at its version's record; while the version is new, an entry of an LRU and an atomic addition. Nothing is
// written for a call, and for a version once. Safe for concurrent use.
type proofs struct {
	prover Prover
	log    *slog.Logger
	counts *lru.Cache[proofKey, *atomic.Int64]
	due    chan proofKey
	done   chan struct{} // closed when run has returned
}

// proofKey has the hash beside the number: numbers begin again when a function is deleted.
type proofKey struct {
	tenant   tenant.ID
	function string
	number   int64
	hash     string
}

func newProofs(prover Prover, log *slog.Logger) (*proofs, error) {
	counts, err := lru.New[proofKey, *atomic.Int64](proofVersions)
	return &proofs{prover: prover, log: log, counts: counts, due: make(chan proofKey, proofQueue), done: make(chan struct{})}, err
}

// run tells the prover, one version at a time, until ctx ends: what waits then is counted anew by the next process.
func (p *proofs) run(ctx context.Context) {
	defer close(p.done)
	for {
		select {
		case <-ctx.Done():
			return
		case k := <-p.due:
			if err := p.prover.MarkProven(ctx, k.tenant, k.function, k.number, k.hash); err != nil {
				if ctx.Err() == nil { // it comes again
					p.log.Warn("that a version has proved itself was not stored", "tenant", k.tenant, "function", k.function,
						"version", k.number, "err", err)
				}
				continue
			}
			p.counts.Remove(k)
		}
	}
}

// wait returns when run has.
func (p *proofs) wait() {
	if p != nil {
		<-p.done
	}
}

// ended counts what of a call has succeeded: the function's version, or each step that did. Drafts prove nothing.
func (p *proofs) ended(inv *invocation, res *call.Result, e *errs.Error) {
	switch {
	case p == nil || inv.draft:
	case inv.pipeline == nil && inv.version != nil && e == nil:
		p.succeeded(inv.req.Tenant, inv.req.Function, inv.version)
	case inv.pipeline != nil && res != nil:
		for i := range min(len(res.Steps), len(inv.pipeline.Steps)) {
			if s := &inv.pipeline.Steps[i]; s.Code != nil && res.Steps[i].Outcome == call.StepOK {
				p.succeeded(inv.req.Tenant, s.Function, s.Code)
			}
		}
	}
}

func (p *proofs) succeeded(t tenant.ID, function string, v *catalog.VersionView) {
	if v.Proven {
		return
	}
	k := proofKey{t, function, v.Number, v.Hash}
	n, ok := p.counts.Get(k)
	if !ok {
		n = new(atomic.Int64)
		if before, existed, _ := p.counts.PeekOrAdd(k, n); existed {
			n = before
		}
	}
	if n.Add(1)%ProofCalls != 0 {
		return
	}
	select {
	case p.due <- k:
	default:
	}
}
