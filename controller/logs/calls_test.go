package logs

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
)

func ended(id string, change func(*Call)) Call {
	c := Call{ID: call.ID(id), Function: "f", Outcome: OutcomeOK, Ended: time.Now()}
	if change != nil {
		change(&c)
	}
	return c
}

func ids(calls []Call) string {
	var all []string
	for _, c := range calls {
		all = append(all, string(c.ID))
	}
	return strings.Join(all, ",")
}

func TestCallsNewestFirstAndFiltered(t *testing.T) {
	h := NewCalls(CallOptions{})
	h.Note("acme", ended("1", nil), nil, plenty)
	h.Note("acme", ended("2", func(c *Call) { c.Outcome = "timeout" }), nil, plenty)
	h.Note("acme", ended("3", func(c *Call) { c.Function, c.Pipeline, c.Steps = "", "login", []Step{{Function: "f"}, {Function: "g"}} }), nil, plenty)
	h.Note("other", ended("4", nil), nil, plenty)
	for _, c := range []struct {
		f    CallFilter
		n    int
		want string
	}{
		{CallFilter{}, 9, "3,2,1"}, {CallFilter{}, 2, "3,2"}, {CallFilter{Outcome: Failed}, 9, "2"}, {CallFilter{Outcome: "ok"}, 9, "3,1"},
		{CallFilter{Outcome: "timeout"}, 9, "2"}, {CallFilter{Function: "f"}, 9, "3,2,1"}, {CallFilter{Function: "g"}, 9, "3"},
		{CallFilter{Pipeline: "login"}, 9, "3"}, {CallFilter{Call: "2"}, 9, "2"}, {CallFilter{Call: "4"}, 9, ""},
	} {
		calls, _ := h.List("acme", c.f, c.n, time.Now())
		if got := ids(calls); got != c.want {
			t.Errorf("%+v: %q, want %q", c.f, got, c.want)
		}
	}
	h.Remove("acme")
	if calls, _ := h.List("acme", CallFilter{}, 9, time.Now()); len(calls) != 0 {
		t.Errorf("left after its removal: %v", calls)
	}
}

func TestInputsAreKeptForThoseWhoWantThem(t *testing.T) {
	h := NewCalls(CallOptions{})
	two := Limits{Bytes: 1 << 20, Inputs: 2}
	h.Note("acme", ended("0", nil), []byte("0"), plenty)
	for _, id := range []string{"1", "2", "3"} {
		h.Note("acme", ended(id, nil), []byte("input "+id), two)
	}
	for id, want := range map[string]string{"0": "", "1": "", "2": "input 2", "3": "input 3"} {
		if got, ok := h.Input("acme", call.ID(id), time.Now()); string(got) != want || ok != (want != "") {
			t.Errorf("%s: %q %v", id, got, ok)
		}
	}
	if _, ok := h.Input("other", "3", time.Now()); ok {
		t.Error("another tenant's")
	}
	_, with := h.List("acme", CallFilter{}, 9, time.Now())
	if len(with) != 2 || !with["3"] {
		t.Errorf("with input: %v", with)
	}
	h.Note("acme", ended("4", nil), make([]byte, 1<<20), two)
	if _, ok := h.Input("acme", "4", time.Now()); ok {
		t.Error("an input beyond the bytes is kept")
	}
	h.Sweep(time.Now(), func(tenant.ID) (Limits, bool) { return Limits{Bytes: 1 << 20}, true })
	if st := h.Stats(); st.InputBytes != 0 || st.Bytes == 0 {
		t.Errorf("after inputs were turned off: %+v", st)
	}
}

// TestShelfAgainstAList compares the ring with the plainest thing that could work, under random puts, sweeps and removals.
func TestShelfAgainstAList(t *testing.T) {
	type thing struct {
		n      int
		weight int64
		at     time.Time
	}
	const total = 500
	r := rand.New(rand.NewPCG(1, 2))
	s := newShelf(total, func(x *thing) int64 { return x.weight }, func(x *thing) time.Time { return x.at })
	lists := map[tenant.ID][]thing{}
	now := time.Now()
	for i := range 20_000 {
		now = now.Add(time.Second)
		id := tenant.ID(fmt.Sprint(r.IntN(5)))
		of := bound{bytes: 1 + r.Int64N(300), count: r.IntN(30), retention: time.Duration(r.IntN(100)) * time.Second}
		switch r.IntN(50) {
		case 0:
			s.remove(id)
			delete(lists, id)
		case 1:
			s.sweep(now, func(t tenant.ID) (bound, bool) { return bound{bytes: 300}, t != id })
			delete(lists, id)
		default:
			x := thing{i, 1 + r.Int64N(20), now}
			s.put(id, x, x.weight, of, now)
			if x.weight <= of.bytes {
				lists[id] = append(lists[id], x)
			}
		}
		sum := int64(0)
		for id, all := range lists { // what is kept is the newest part of what came, and all that is kept is counted
			at := len(all)
			s.each(id, time.Time{}, func(x *thing) bool {
				at--
				if at < 0 || all[at] != *x {
					t.Fatalf("%s has %+v where %d are left of the list", id, *x, at)
				}
				sum += x.weight
				return true
			})
			lists[id] = all[max(at, 0):]
		}
		if sum != s.bytes || sum > total {
			t.Fatalf("%d bytes are kept, %d counted, %d allowed", sum, s.bytes, total)
		}
		places := 0
		for k := range s.sizes {
			places += s.sizes[k].Len()
		}
		if places != len(s.bins) {
			t.Fatalf("%d places of %d tenants", places, len(s.bins))
		}
	}
}

func TestMessageOf(t *testing.T) {
	long := strings.Repeat("é", maxMessageBytes)
	for _, c := range []struct {
		e    *errs.Error
		want string
	}{
		{nil, ""},
		{errs.New(errs.Timeout, "too late"), "too late"},
		{&errs.Error{Kind: errs.UserError, Message: "the code failed", Thrown: &errs.Thrown{Name: "TypeError", Message: "x"}}, "TypeError: x"},
		{&errs.Error{Kind: errs.UserError, Message: "the code failed", Thrown: &errs.Thrown{Name: "TypeError"}}, "TypeError"},
		{&errs.Error{Kind: errs.UserError, Thrown: &errs.Thrown{Message: "a\xffb"}}, "a\uFFFDb"},
		{errs.New(errs.Timeout, "%s", long), strings.Repeat("é", (maxMessageBytes-3)/2) + "…"},
	} {
		if got := MessageOf(c.e); got != c.want {
			t.Errorf("%v: %q", c.e, got)
		}
	}
}

// BenchmarkNote is what history costs a call.
func BenchmarkNote(b *testing.B) {
	h := NewCalls(CallOptions{})
	limits := Limits{Bytes: tenant.DefaultLogKeptBytes, Retention: time.Hour}
	id := call.ID("0123456789abcdef0123456789abcdef")
	b.ReportAllocs()
	for b.Loop() {
		h.Note("acme", Call{ID: id, Function: "f", Outcome: OutcomeOK, Ended: time.Now()}, nil, limits)
	}
}
