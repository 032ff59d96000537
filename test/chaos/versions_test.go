package chaos

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// A function's pointer is a register: which version is active, which is the newest, and the revision of the last write, against
// which the next one is guarded.
type (
	versionOp struct {
		what     string // deploy, activate, read
		version  int64  // that activate names
		expected int64  // revision
	}
	versionResult struct {
		pointer
		unknown  bool // whether it was written is not known
		conflict bool // it was not
	}
	// versionState has revision 0 after a write that nobody was told of: then the true one is any above floor.
	versionState struct {
		pointer
		floor int64
	}
)

// held says whether a write that expects a revision may have found it.
func (s versionState) held(expected int64) bool {
	return s.revision == expected || s.revision == 0 && s.floor > 0 && expected > s.floor
}

func stepVersion(state, input, output any) []any {
	s, op, res := state.(versionState), input.(versionOp), output.(versionResult)
	next := versionState{pointer: s.pointer}
	switch op.what {
	case "read":
		known := s.revision == 0 && s.floor > 0 && res.revision > s.floor || s.revision == res.revision
		if known && res.active == s.active && res.newest == s.newest {
			return []any{versionState{pointer: res.pointer}}
		}
		return nil
	case "deploy":
		next.active, next.newest = s.newest+1, s.newest+1
	case "activate":
		next.active = op.version
	}
	switch {
	case res.conflict:
		return []any{s} // somebody else had written, or the one that was told of is not the last
	case res.unknown:
		next.revision, next.floor = 0, max(s.floor, s.revision, op.expected)
		if s.held(op.expected) {
			return []any{s, next}
		}
		return []any{s}
	case !s.held(op.expected) || res.active != next.active || res.newest != 0 && res.newest != next.newest || res.revision <= max(s.revision, s.floor):
		return nil
	}
	next.revision = res.revision
	return []any{next}
}

var versionModel = (&porcupine.NondeterministicModel{
	Init:  func() []any { return []any{versionState{}} },
	Step:  stepVersion,
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("%+v -> %+v", input, output)
	},
}).ToModel()

// pointers are the histories of the functions whose versions change. Safe for concurrent use.
type pointers struct {
	h *history

	mu       sync.Mutex
	clients  int
	ops      map[string][]porcupine.Operation
	acked    map[string]pointer // the newest write that was acknowledged, by tenant
	observed []observation
	counts   map[string]int // of outcomes
}

func newPointers(h *history) *pointers {
	return &pointers{h: h, ops: map[string][]porcupine.Operation{}, acked: map[string]pointer{}, counts: map[string]int{}}
}

// client is a new client's number: one whose write has an unknown outcome goes on as another.
func (p *pointers) client() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients++
	return p.clients
}

// keep adds an operation. One that is not known stays open for ever; a read that failed says nothing.
func (p *pointers) keep(tenant string, client int, op versionOp, res versionResult, began, ended time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	back := int64(ended)
	outcome := "acknowledged"
	switch {
	case res.unknown:
		back, outcome = math.MaxInt64, "unknown"
	case res.conflict:
		outcome = "refused"
	case op.what == "read":
		outcome = "read"
	}
	p.counts[outcome]++
	p.ops[tenant] = append(p.ops[tenant], porcupine.Operation{ClientId: client, Input: op, Output: res, Call: int64(began), Return: back})
	if outcome == "acknowledged" && res.revision > p.acked[tenant].revision {
		p.acked[tenant] = res.pointer
	}
}

func (p *pointers) lastAcked(tenant string) pointer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked[tenant]
}

func (p *pointers) histories() map[string][]porcupine.Operation {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string][]porcupine.Operation{}
	for t, ops := range p.ops {
		all["versions of "+t] = slices.Clone(ops)
	}
	return all
}

// steward changes one tenant's function again and again, through every router, against another one who does the same.
type steward struct {
	p      *pointers
	c      *cluster
	caller *caller
	tenant string
	key    string
	random *rand.Rand
	id     int
}

// stewardEvery is the pace of one steward.
const stewardEvery = 700 * time.Millisecond

func (s *steward) run(stop <-chan struct{}) {
	s.id = s.p.client()
	for {
		s.turn()
		select {
		case <-stop:
			return
		case <-time.After(stewardEvery/2 + time.Duration(s.random.Int64N(int64(stewardEvery)))):
		}
	}
}

// turn reads, writes what was decided on that, and calls.
func (s *steward) turn() {
	began := s.p.h.now()
	at, err := s.c.store.pointer(s.tenant, "turning")
	if err != nil {
		return
	}
	s.p.keep(s.tenant, s.id, versionOp{what: "read"}, versionResult{pointer: at}, began, s.p.h.now())
	op := versionOp{what: "deploy", expected: at.revision}
	if at.newest > 1 && s.random.IntN(3) == 0 {
		op = versionOp{what: "activate", expected: at.revision, version: 1 + s.random.Int64N(at.newest)}
	}
	s.write(op, at)
	s.observe()
}

func (s *steward) write(op versionOp, at pointer) {
	if op.what == "activate" && op.version == at.active {
		return // changes nothing
	}
	m := s.c.management(s.caller.b.pick())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	began := s.p.h.now()
	var f function
	var err error
	if op.what == "deploy" {
		f, err = m.deploy(ctx, s.tenant, "turning", echoSource(s.tenant, at.newest+1)+fmt.Sprintf("// %d %d\n", s.id, began), op.expected)
	} else {
		f, err = m.activate(ctx, s.tenant, "turning", op.version, op.expected)
	}
	res := versionResult{pointer: pointer{active: f.Version, newest: f.DeployedVersion, revision: f.Revision}}
	if err != nil {
		res = outcomeOf(err)
	}
	s.p.keep(s.tenant, s.id, op, res, began, s.p.h.now())
	if res.unknown {
		s.id = s.p.client()
	}
}

// outcomeOf says what is known of a write that failed.
func outcomeOf(err error) versionResult {
	var r *refused
	if errors.As(err, &r) && r.status < 500 {
		return versionResult{conflict: true}
	}
	return versionResult{unknown: true}
}

// observe calls the function: who begins after a write was acknowledged must see that one, or a later one.
func (s *steward) observe() {
	before := s.p.lastAcked(s.tenant)
	if before.revision == 0 {
		return
	}
	got := s.caller.call(s.tenant, s.key, options{router: -1, name: "turning", query: fmt.Sprintf("&min_revision=%d", before.revision)})
	if failed(got) {
		return
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.observed = append(s.p.observed, observation{before, got})
}

// observation is a call that asked for a revision, that of the newest write that had been acknowledged when it began.
type observation struct {
	asked pointer
	got   sample
}

// stale returns the calls that saw an older version than they asked for: neither the one of that revision nor one that was
// written later, for all that is known.
func (p *pointers) stale() (checked int, wrong []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.observed {
		later := func(op porcupine.Operation) bool {
			in, res := op.Input.(versionOp), op.Output.(versionResult)
			switch {
			case in.what == "read" || res.conflict || op.Call > int64(o.got.ended):
				return false
			case res.unknown:
				return in.what == "deploy" || in.version == o.got.version
			}
			return res.revision > o.asked.revision && res.active == o.got.version
		}
		if o.got.version != o.asked.active && !slices.ContainsFunc(p.ops[o.got.tenant], later) {
			wrong = append(wrong, fmt.Sprintf("version %d was acknowledged at revision %d, and %v saw %d", o.asked.active, o.asked.revision, o.got, o.got.version))
		}
	}
	return len(p.observed), wrong
}

// The model takes guarded writes in some order, and no two that were decided on the same revision.
func TestVersionModel(t *testing.T) {
	type op struct {
		in       versionOp
		out      versionResult
		from, to int64
	}
	at := func(active, newest, revision int64) versionResult {
		return versionResult{pointer: pointer{active, newest, revision}}
	}
	deploy := func(expected int64) versionOp { return versionOp{what: "deploy", expected: expected} }
	read := versionOp{what: "read"}
	const open = math.MaxInt64
	first := []op{{deploy(0), at(1, 1, 5), 0, 1}}
	for name, c := range map[string]struct {
		ops []op
		ok  bool
	}{
		"one after the other":  {[]op{{deploy(5), at(2, 2, 7), 2, 3}, {versionOp{"activate", 1, 7}, at(1, 0, 9), 4, 5}, {read, at(1, 2, 9), 6, 7}}, true},
		"two of one revision":  {[]op{{deploy(5), at(2, 2, 7), 2, 5}, {deploy(5), at(3, 3, 8), 2, 5}}, false},
		"the second refused":   {[]op{{deploy(5), at(2, 2, 7), 2, 5}, {deploy(5), versionResult{conflict: true}, 2, 5}}, true},
		"an old read":          {[]op{{deploy(5), at(2, 2, 7), 2, 3}, {read, at(1, 1, 5), 4, 5}}, false},
		"unknown and done":     {[]op{{deploy(5), versionResult{unknown: true}, 2, open}, {read, at(2, 2, 7), 4, 5}}, true},
		"unknown and not done": {[]op{{deploy(5), versionResult{unknown: true}, 2, open}, {read, at(1, 1, 5), 4, 5}}, true},
		"unknown, done late": {[]op{{deploy(5), versionResult{unknown: true}, 2, open}, {read, at(1, 1, 5), 4, 5}, {read, at(2, 2, 7), 6, 7},
			{deploy(7), at(3, 3, 9), 8, 9}}, true},
		"done and undone": {[]op{{deploy(5), versionResult{unknown: true}, 2, open}, {read, at(2, 2, 7), 4, 5}, {read, at(1, 1, 5), 6, 7}}, false},
	} {
		var ops []porcupine.Operation
		for i, o := range append(slices.Clone(first), c.ops...) {
			ops = append(ops, porcupine.Operation{ClientId: i, Input: o.in, Output: o.out, Call: o.from, Return: o.to})
		}
		if _, wrong := linearizable(versionModel, map[string][]porcupine.Operation{"x": ops}, t.TempDir()); (len(wrong) == 0) != c.ok {
			t.Errorf("%s: %v", name, strings.Join(wrong, "; "))
		}
	}
}
