package chaos

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// latchEvery is how often the host's latches are looked at.
const latchEvery = 100 * time.Millisecond

// A container is a register: it is created as nobody's, bound once, and destroyed. What changes it was seen on the host, between two
// looks at the latches; calls that it answered observe whose it was.
type (
	bindingOp struct {
		what   string // create, bind, observe, destroy
		tenant string
	}
	bindingState struct {
		stage  string // "", free, bound, gone
		tenant string
	}
)

func stepBinding(state, input, _ any) (bool, any) {
	s, op := state.(bindingState), input.(bindingOp)
	switch op.what {
	case "create":
		return s.stage == "", bindingState{stage: "free"}
	case "bind":
		return s.stage == "free", bindingState{"bound", op.tenant}
	case "observe":
		return s.stage == "bound" && s.tenant == op.tenant, s
	}
	return s.stage == "free" || s.stage == "bound", bindingState{stage: "gone"}
}

var bindingModel = porcupine.Model{
	Init:  func() any { return bindingState{} },
	Step:  stepBinding,
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(input, _ any) string {
		op := input.(bindingOp)
		return op.what + "(" + op.tenant + ")"
	},
	DescribeState: func(s any) string { return fmt.Sprint(s) },
}

// bindings are the histories of all containers. Safe for concurrent use.
type bindings struct {
	h *history

	mu   sync.Mutex
	seen map[string]*seenContainer
}

type seenContainer struct {
	node   int
	tenant string
	gone   bool
	ops    []porcupine.Operation
}

func newBindings(h *history) *bindings { return &bindings{h: h, seen: map[string]*seenContainer{}} }

// looked takes in what the latches of a controller say, after a look that began no earlier than from.
func (b *bindings) looked(node int, found map[string]string, from, to time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, tenant := range found {
		c := b.seen[id]
		if c != nil && c.tenant != "" && tenant == "" { // its directory is being removed, and the latch went first
			delete(found, id)
			continue
		}
		if c == nil {
			c = &seenContainer{node: node}
			b.seen[id] = c
			c.note(bindingOp{what: "create"}, from, to)
		}
		if tenant != c.tenant {
			c.note(bindingOp{"bind", tenant}, from, to)
			c.tenant = tenant
		}
	}
	for id, c := range b.seen {
		if _, there := found[id]; !there && c.node == node && !c.gone {
			c.gone = true
			c.note(bindingOp{what: "destroy"}, from, to)
		}
	}
}

func (c *seenContainer) note(op bindingOp, from, to time.Duration) {
	c.ops = append(c.ops, porcupine.Operation{ClientId: 0, Input: op, Call: int64(from), Return: int64(to)})
}

// watch looks at the latches until stop is closed.
func (b *bindings) watch(c *cluster, stop <-chan struct{}) {
	var last [controllers]time.Duration
	tick := time.NewTicker(latchEvery)
	defer tick.Stop()
	for {
		for i, n := range c.nodes {
			began := b.h.now()
			found := c.latches(n)
			b.looked(i, found, last[i], b.h.now())
			last[i] = began
		}
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

// mostObserved calls of one container go into its history, the first and the last of them: in between nothing changes it, and
// the plain check over all calls sees what is left out.
const mostObserved = 400

// histories returns one history per container, the calls that it answered among them.
func (b *bindings) histories() map[string][]porcupine.Operation {
	b.mu.Lock()
	defer b.mu.Unlock()
	answered := map[string][]sample{}
	for _, s := range b.h.between(0, endless, func(s sample) bool { return s.container != "" && !s.stream }) {
		answered[s.container] = append(answered[s.container], s)
	}
	all := map[string][]porcupine.Operation{}
	for id, c := range b.seen {
		ops := append([]porcupine.Operation(nil), c.ops...)
		calls := answered[id]
		if len(calls) > mostObserved {
			calls = append(append([]sample(nil), calls[:mostObserved/2]...), calls[len(calls)-mostObserved/2:]...)
		}
		for i, s := range calls {
			ops = append(ops, porcupine.Operation{ClientId: 1 + i, Input: bindingOp{"observe", s.tenant}, Call: int64(s.began), Return: int64(s.ended)})
		}
		all[id] = ops
	}
	return all
}

// unseen are the calls that were answered by a container that the host never had.
func (b *bindings) unseen() (wrong []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.h.between(0, endless, func(s sample) bool { return s.container != "" && !failed(s) }) {
		if b.seen[s.container] == nil {
			wrong = append(wrong, fmt.Sprintf("no latch was ever seen of the container of %v", s))
		}
	}
	return wrong
}

// checkLimit bounds one check by porcupine. What cannot be decided by then is a failure of the set-up.
const checkLimit = time.Minute

// linearizable checks histories by partition; the pictures of those that are wrong go to dir.
func linearizable(model porcupine.Model, histories map[string][]porcupine.Operation, dir string) (checked int, wrong []string) {
	for name, ops := range histories {
		if len(ops) == 0 {
			continue
		}
		checked++
		result, info := porcupine.CheckOperationsVerbose(model, ops, checkLimit)
		switch result {
		case porcupine.Ok:
			continue
		case porcupine.Unknown:
			wrong = append(wrong, fmt.Sprintf("%s: undecided after %v with %d operations: the test's own failure", name, checkLimit, len(ops)))
			continue
		}
		text := fmt.Sprintf("%s is not linearizable (%d operations)", name, len(ops))
		if f, err := os.CreateTemp(dir, "chaos-*.html"); err == nil {
			if porcupine.Visualize(model, info, f) == nil {
				text += ", see " + f.Name()
			}
			f.Close()
		}
		wrong = append(wrong, text)
	}
	return checked, wrong
}

// The model lets a container be bound once, and takes no answer from one that is another's, or nobody's, or gone.
func TestBindingModel(t *testing.T) {
	type op struct {
		what, tenant string
		from, to     int64
	}
	for name, c := range map[string]struct {
		ops []op
		ok  bool
	}{
		"a life":                  {[]op{{"create", "", 0, 1}, {"bind", "a", 2, 5}, {"observe", "a", 3, 4}, {"observe", "a", 6, 7}, {"destroy", "", 8, 9}}, true},
		"answered while it goes":  {[]op{{"create", "", 0, 1}, {"bind", "a", 2, 3}, {"observe", "a", 4, 9}, {"destroy", "", 5, 8}}, true},
		"two tenants":             {[]op{{"create", "", 0, 1}, {"bind", "a", 2, 3}, {"observe", "b", 4, 5}}, false},
		"bound twice":             {[]op{{"create", "", 0, 1}, {"bind", "a", 2, 3}, {"bind", "b", 4, 5}}, false},
		"given back":              {[]op{{"create", "", 0, 1}, {"bind", "a", 2, 3}, {"bind", "", 4, 5}}, false},
		"answered when nobody's":  {[]op{{"create", "", 0, 1}, {"observe", "a", 2, 3}, {"bind", "a", 4, 5}}, false},
		"answered when it's gone": {[]op{{"create", "", 0, 1}, {"bind", "a", 2, 3}, {"destroy", "", 4, 5}, {"observe", "a", 6, 7}}, false},
	} {
		var ops []porcupine.Operation
		for i, o := range c.ops {
			ops = append(ops, porcupine.Operation{ClientId: i, Input: bindingOp{o.what, o.tenant}, Call: o.from, Return: o.to})
		}
		if _, wrong := linearizable(bindingModel, map[string][]porcupine.Operation{"x": ops}, t.TempDir()); (len(wrong) == 0) != c.ok {
			t.Errorf("%s: %v", name, wrong)
		}
	}
}

// What the looks at the latches saw becomes a history: one that goes first, before its directory, is no container given back, and
// one that comes again with another tenant is.
func TestLooksAtLatches(t *testing.T) {
	for name, c := range map[string]struct {
		looks []map[string]string
		ok    bool
	}{
		"a life":               {[]map[string]string{{"x": ""}, {"x": "a"}, {}}, true},
		"the latch goes first": {[]map[string]string{{"x": "a"}, {"x": ""}, {}}, true},
		"another's then":       {[]map[string]string{{"x": "a"}, {"x": ""}, {"x": "b"}}, false},
	} {
		b := newBindings(newHistory())
		for i, found := range c.looks {
			b.looked(0, found, time.Duration(2*i), time.Duration(2*i+1))
		}
		if _, wrong := linearizable(bindingModel, b.histories(), t.TempDir()); (len(wrong) == 0) != c.ok {
			t.Errorf("%s: %v", name, wrong)
		}
	}
}
