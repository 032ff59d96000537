package hostile

import (
	"fmt"
	"slices"
	"time"
)

// R: containers that a controller took over from one that was killed. Outcomes are told from what the kernel counted, which
// must not have died with the process that made them.
var restartAttacks = []attack{
	{id: "R1 memory", file: "b2-buffers.js", input: in("how", "buffer"), limit: 20 * time.Second, want: outOfMemory, gone: true},
	{id: "R2 processes", file: "c10-pids-crash.js", limit: 10 * time.Second, want: atLimit, gone: true, before: fewProcesses},
	{id: "R3 crash", file: "c4-kill-init.js", input: in("how", "native"), limit: 5 * time.Second, want: crashed, gone: true},
	{id: "R4 spin", file: "a1-spin.js", want: timeout, gone: true},
	{id: "R5 breach", file: "e7-malformed.js", input: in("how", "random"), limit: 5 * time.Second, want: protocol, gone: true},
	{id: "R6 heap", file: "b1-heap.js", limit: 60 * time.Second, want: outOfMemory, gone: true},
	{id: "R7 leave", file: "d7-leave.js", limit: 5 * time.Second, want: answered, after: all(says(`[]`), nobodyFindsIt)},
}

// afterRestart kills the controller under its tenants, starts it again and attacks from the containers that it then adopts.
// It says whether anything was to be tried.
func (b *battery) afterRestart() bool {
	var ready []*attempt
	for i := range restartAttacks {
		a := &restartAttacks[i]
		if !a.runsOn(b.engine) || !wanted(a.id) {
			continue
		}
		at, err := b.prepare(a)
		if err != nil {
			b.add(result{engine: b.engine, id: a.id, file: a.file, want: a.want, kind: "not run", wrong: []string{err.Error()}})
			continue
		}
		ready = append(ready, at)
	}
	if len(ready) == 0 {
		return false
	}
	b.canary.end()
	b.service.restart()
	var err error
	if b.own, err = b.service.own(); err != nil {
		b.t.Fatal(err)
	}
	b.canary.resume() // its container is the same
	for _, at := range ready {
		adopted := at.adopted()
		r := at.execute()
		if adopted != nil {
			at.fail("%v", adopted)
		}
		b.ends.Go(func() {
			at.dispose(&r)
			r.wrong = at.wrong
			b.add(r)
		})
	}
	b.ends.Wait()
	return true
}

// adopted wants the attacker to have the container still that it had before.
func (at *attempt) adopted() error {
	boxes, err := at.service.boxes(at.tenant)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(boxes, func(x box) bool { return x.ID == at.container && x.State == "assigned" }) {
		return fmt.Errorf("the container was not adopted: there are %v", boxes)
	}
	next, err := at.runSource(`module.exports = () => 'still there'`, nil, 30*time.Second, false)
	if err != nil || next.kind != "ok" || next.container != at.container {
		return fmt.Errorf("the first call after the restart ended as %s (%s) in %s, %v", next.kind, next.detail, next.container, err)
	}
	return nil
}
