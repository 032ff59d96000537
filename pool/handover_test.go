package pool_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
)

// spill is a call that could be run elsewhere.
func (r *rig) spill(id tenant.ID, do string) *call.Request {
	req := r.req(id, do)
	req.Spill = true
	return req
}

// A tenant that is served elsewhere: what runs ends here, what waits and what comes is sent there, and what has nowhere else to go is
// served.
func TestHandover(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		var s served
		s.run(r, r.req("t", "gate a"))
		given := r.Handover("t", 0, pool.CauseSurplus)
		synctest.Wait()
		if len(given) != 1 || given[0].Tenant != "t" || r.heard.released[given[0].Container] != pool.CauseSurplus {
			t.Fatalf("gave %v, released %v", given, r.heard.released)
		}
		_, err := r.Do(r.t.Context(), r.spill("t", "value 1"), nil)
		if e := errs.From(err); e == nil || e.Kind != errs.NoCapacity || e.Cause != errs.CauseMoved || e.WhetherStarted() != errs.StartedNo {
			t.Fatalf("a call that came late: %v", err)
		}
		extra := r.spill("t", "value 1")
		extra.Extra = true
		if _, err := r.Do(r.t.Context(), extra, nil); err != nil {
			t.Errorf("a call that is here because the others are full: %v", err)
		}
		r.engine.Open("a")
		s.wg.Wait()
		if len(s.errs) > 0 {
			t.Errorf("calls that were there failed: %v", s.errs)
		}
		if len(r.Handover("t", 0, pool.CauseSurplus)) == 0 {
			t.Error("the extra one is not given up")
		}
		time.Sleep(time.Minute)
		if _, err := r.Do(r.t.Context(), r.spill("t", "value 1"), nil); err != nil {
			t.Errorf("a minute later: %v", err)
		}
	})
}

// Of a tenant that has too many containers, those with the fewest calls go; what is kept serves as before.
func TestHandoverOfSome(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		p := policy(func(p *tenant.Policy) { p.CallsPerContainer = 2 })
		var s served
		for range 3 { // two on one container, one on the other
			req := r.spill("t", "gate a")
			req.Policy = p
			s.run(r, req)
		}
		before := r.Containers("t")
		slices.SortFunc(before, func(a, b pool.Info) int { return b.InFlight - a.InFlight })
		given := r.Handover("t", 1, pool.CauseSurplus)
		if len(before) != 2 || len(given) != 1 || given[0].Container != before[1].ID {
			t.Fatalf("of %+v gave %v", before, given)
		}
		if given := r.Handover("t", 1, pool.CauseSurplus); len(given) != 0 {
			t.Errorf("once more: gave %v", given)
		}
		r.engine.Open("a")
		s.wg.Wait()
		res, err := r.Do(r.t.Context(), r.spill("t", "value 1"), nil)
		if err != nil || res.Container != before[0].ID || len(s.errs) > 0 {
			t.Errorf("%+v, %v; %v", res, err, s.errs)
		}
	})
}

// What waits for a slot and could go elsewhere goes there at once.
func TestHandoverAnswersWhoWaits(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		wide := policy(func(p *tenant.Policy) { p.ClaimBurst, p.ClaimsPerSecond, p.CallsPerContainer = 1, 1, 1 })
		var s served
		for _, do := range []string{"gate a", "value 1"} { // one runs, the other waits for a claim
			req := r.spill("t", do)
			req.Policy = wide
			s.run(r, req)
		}
		if st := r.Stats(); st.Waiting != 1 {
			t.Fatalf("%+v", st)
		}
		r.Handover("t", 0, pool.CauseAdmin)
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.errs) != 1 || s.errs[0].Cause != errs.CauseMoved {
			t.Errorf("answered: %v", s.errs)
		}
		r.engine.Open("a")
	})
}

// A retired pool empties, takes no tenants that others could take, and begins again.
func TestRetire(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		if _, err := r.Do(r.t.Context(), r.req("old", "value 1"), nil); err != nil {
			t.Fatal(err)
		}
		r.Retire(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if st := r.Stats(); st.Ready+st.Creating != 0 || st.Assigned != 1 {
			t.Errorf("retired: %+v", st)
		}
		if _, err := r.Do(r.t.Context(), r.spill("old", "value 1"), nil); err != nil {
			t.Errorf("a tenant that has a container here: %v", err)
		}
		_, err := r.Do(r.t.Context(), r.spill("new", "value 1"), nil)
		if e := errs.From(err); e == nil || e.Kind != errs.NoCapacity || e.Cause != errs.CauseDraining {
			t.Errorf("a new tenant: %v", err)
		}
		if _, err := r.Do(r.t.Context(), r.req("last", "value 1"), nil); err != nil {
			t.Errorf("a new tenant with nowhere else to go: %v", err)
		}
		r.Retire(false)
		r.untilReady(2)
	})
}

// A tenant's container is bound before its first call, which finds it; it ages like any other, and is bound once.
func TestWarm(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		for range 2 {
			req := &call.Request{Tenant: "t", Runtime: "node", Deadline: time.Now().Add(time.Second), Spill: true}
			if err := r.Warm(r.t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
		all := r.Containers("t")
		if len(all) != 1 || all[0].Calls != 0 || all[0].State != pool.Assigned {
			t.Fatalf("%+v", all)
		}
		res, err := r.Do(r.t.Context(), r.req("t", "value 1"), nil)
		if err != nil || res.Container != all[0].ID || res.Start != call.StartWarm {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

// A tenant whose containers here are full goes elsewhere where it may, instead of waiting, but not beyond what it may have here.
func TestFullTenantsSpill(t *testing.T) {
	bubble(t, nil, func(r *rig) {
		r.untilReady(2)
		p := policy(func(p *tenant.Policy) { p.CallsPerContainer, p.MaxContainers = 1, 4 })
		var s served
		first := r.spill("t", "gate a")
		first.Policy, first.AtMost = p, 1
		s.run(r, first)
		second := r.spill("t", "value 1")
		second.Policy, second.AtMost = p, 1
		_, err := r.Do(r.t.Context(), second, nil)
		if e := errs.From(err); e == nil || e.Kind != errs.NoCapacity || e.WhetherStarted() != errs.StartedNo {
			t.Errorf("with one container at most: %v", err)
		}
		second = r.spill("t", "value 1")
		second.Policy, second.AtMost, second.Extra = p, 2, true
		if _, err := r.Do(r.t.Context(), second, nil); err != nil {
			t.Errorf("with two at most: %v", err)
		}
		extra := 0
		for _, i := range r.Containers("t") {
			if i.Extra {
				extra++
			}
		}
		if n := len(r.Containers("t")); n != 2 || extra != 1 {
			t.Errorf("%d containers, %d of them extra", n, extra)
		}
		r.engine.Open("a")
		s.wg.Wait()
	})
}
