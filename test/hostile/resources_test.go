package hostile

import (
	"fmt"
	"os"
	"strings"
	"time"

	"paddock/pool/cgroup"
)

func in(pairs ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1]
	}
	return m
}

var (
	timeout     = []string{"timeout"}
	answered    = []string{"ok"}
	userError   = []string{"user_error"}
	outOfMemory = []string{"out_of_memory"}
	crashed     = []string{"sandbox_lost/crashed"}
	protocol    = []string{"sandbox_lost/protocol"}
	atLimit     = []string{"sandbox_lost/pids"}
	tooLarge    = []string{"output_too_large"}
)

// A: time. JavaScript cannot be stopped from inside; the host keeps the time.
var cpuAttacks = []attack{
	{id: "A1", file: "a1-spin.js", want: timeout, gone: true},
	{id: "A2 microtask", file: "a2-starve.js", input: in("how", "microtask"), want: timeout, gone: true},
	{id: "A2 nextTick", file: "a2-starve.js", input: in("how", "nextTick"), want: timeout, gone: true},
	{id: "A2 queue", file: "a2-starve.js", input: in("how", "queue"), want: timeout, gone: true},
	{id: "A2 immediate", file: "a2-starve.js", input: in("how", "immediate"), want: timeout},
	{id: "A4", file: "a4-all-cores.js", limit: 1500 * time.Millisecond, want: append(outOfMemory, timeout...), before: startClock, after: withinQuota},
	{id: "A5 timers", file: "a5-after-answer.js", input: in("how", "timers"), limit: 5 * time.Second, want: answered, later: quietSoon},
	{id: "A5 block", file: "a5-after-answer.js", input: in("how", "block"), limit: 5 * time.Second, want: answered, later: quietSoon},
	{id: "A5 worker", file: "a5-after-answer.js", input: in("how", "worker"), limit: 5 * time.Second, want: answered, later: quietSoon},
	{id: "A5 child", file: "a5-after-answer.js", input: in("how", "child"), limit: 10 * time.Second, want: answered, later: quietSoon},
	{id: "A6 promise", file: "a6-never.js", input: in("how", "promise"), want: timeout, stays: true},
	{id: "A6 atomics", file: "a6-never.js", input: in("how", "atomics"), want: timeout, gone: true},
	{id: "A6 child", file: "a6-never.js", input: in("how", "child"), want: timeout, gone: true},
	{id: "A7", file: "a7-signals.js", want: timeout, gone: true, after: goneSoon},
	{id: "A8 load", file: "a8-load-time.js", want: timeout, gone: true},
	{id: "A8 compile", file: "a8-compile-bomb.js", alone: true, limit: 5 * time.Second, want: []string{"load_error", "user_error"}, stays: true},
	{id: "A8 again", file: "a8-load-time.js", limit: time.Second, want: []string{"limited/quarantine"}, strike: againAndAgain},
	{id: "A9 regexp", file: "a9-native.js", input: in("how", "regexp"), want: timeout, gone: true},
	{id: "A9 pbkdf2", file: "a9-native.js", input: in("how", "pbkdf2"), want: timeout, gone: true},
	{id: "A9 wasm", file: "a9-native.js", input: in("how", "wasm"), want: timeout, gone: true},
	{id: "A9 sort", file: "a9-native.js", input: in("how", "sort"), want: append(timeout, outOfMemory...), gone: true},
	{id: "A9 bigint", file: "a9-native.js", input: in("how", "bigint"), want: append(timeout, outOfMemory...), gone: true},
}

// B: memory. The kernel's counters say how it ended.
var memoryAttacks = []attack{
	{id: "B1", file: "b1-heap.js", limit: 60 * time.Second, want: outOfMemory, gone: true, before: noSwap},
	{id: "B2 buffer", file: "b2-buffers.js", input: in("how", "buffer"), limit: 20 * time.Second, want: outOfMemory, gone: true},
	{id: "B2 arraybuffer", file: "b2-buffers.js", input: in("how", "arraybuffer"), limit: 20 * time.Second, want: outOfMemory, gone: true},
	{id: "B2 wasm", file: "b2-buffers.js", input: in("how", "wasm"), limit: 20 * time.Second, want: outOfMemory, gone: true},
	{id: "B2 strings", file: "b2-buffers.js", input: in("how", "strings"), limit: 20 * time.Second, want: outOfMemory, gone: true},
	{id: "B3", file: "b3-tmp-fill.js", limit: 10 * time.Second, want: answered, after: held(3), stays: true},
	{id: "B6", file: "b6-small-files.js", limit: 10 * time.Second, want: append(answered, outOfMemory...)},
	{id: "B7", file: "b7-everyone.js", limit: 20 * time.Second, want: answered, strike: everyone, after: held(crowd + 3)},
	{id: "B8", file: "b8-swap.js", limit: 20 * time.Second, want: outOfMemory, gone: true, before: noSwap},
	{id: "B9", file: "b9-worker-heaps.js", limit: 60 * time.Second, want: outOfMemory, gone: true},
	{id: "B10", file: "b10-child-memory.js", limit: 60 * time.Second, want: append(answered, outOfMemory...), gone: true},
	{id: "B11", file: "b11-raised-limits.js", limit: 60 * time.Second, want: outOfMemory, gone: true},
}

// C: processes, threads, signals, errors.
var processAttacks = []attack{
	{id: "C1", file: "c1-fork-bomb.js", limit: 2 * time.Second, want: append(outOfMemory, "timeout", "sandbox_lost/pids", "sandbox_lost/crashed"), before: startClock, after: withinQuota},
	{id: "C2", file: "c2-workers.js", limit: 2 * time.Second, want: append(outOfMemory, "timeout", "sandbox_lost/pids", "sandbox_lost/crashed", "user_error")},
	{id: "C3", file: "c3-daemon.js", limit: 10 * time.Second, want: answered, after: says(`"left behind"`), later: quietSoon},
	{id: "C3 fresh", file: "c3-daemon.js", limit: 10 * time.Second, fresh: true, want: answered, after: all(says(`"left behind"`), freshGone)},
	{id: "C4 exit", file: "c4-kill-init.js", input: in("how", "exit"), limit: 5 * time.Second, want: userError, after: tells("process.exit"), stays: true},
	{id: "C4 abort", file: "c4-kill-init.js", input: in("how", "abort"), limit: 5 * time.Second, want: userError, after: tells("process.abort"), stays: true},
	{id: "C4 kill", file: "c4-kill-init.js", input: in("how", "kill"), limit: 5 * time.Second, want: userError, after: tells("process.kill"), stays: true},
	{id: "C4 child-kill", file: "c4-kill-init.js", input: in("how", "child-kill"), limit: 10 * time.Second, want: append(answered, crashed...)},
	{id: "C4 child-kill-all", file: "c4-kill-init.js", input: in("how", "child-kill-all"), limit: 10 * time.Second, want: append(answered, crashed...)},
	{id: "C4 child-stop", file: "c4-kill-init.js", input: in("how", "child-stop"), limit: 3 * time.Second, want: append(answered, append(crashed, timeout...)...)},
	{id: "C4 child-signals", file: "c4-kill-init.js", input: in("how", "child-signals"), limit: 10 * time.Second, want: append(answered, crashed...)},
	{id: "C4 quit", file: "c4-kill-init.js", input: in("how", "quit"), limit: 5 * time.Second, want: append(crashed, protocol...), gone: true},
	{id: "C4 fresh", file: "c4-kill-init.js", input: in("how", "native"), fresh: true, limit: 10 * time.Second, want: crashed, stays: true},
	{id: "C4 native", file: "c4-kill-init.js", input: in("how", "native"), limit: 5 * time.Second, want: crashed, gone: true},
	{id: "C5", file: "c5-patched-process.js", want: timeout, gone: true},
	{id: "C6 js", file: "c6-stack.js", input: in("how", "js"), limit: 5 * time.Second, want: userError, after: tells("RangeError"), stays: true},
	{id: "C6 json", file: "c6-stack.js", input: in("how", "json"), limit: 30 * time.Second, want: append(userError, crashed...)},
	{id: "C6 getter", file: "c6-stack.js", input: in("how", "getter"), limit: 5 * time.Second, want: append(userError, crashed...)},
	{id: "C6 regexp", file: "c6-stack.js", input: in("how", "regexp"), limit: 5 * time.Second, want: append(userError, crashed...)},
	{id: "C6 edge", file: "c6-stack.js", input: in("how", "edge"), limit: 5 * time.Second, want: answered},
	{id: "C7 rejection", file: "c7-late-errors.js", input: in("how", "rejection"), limit: 5 * time.Second, want: userError, after: tells("from nowhere"), stays: true},
	{id: "C7 tick", file: "c7-late-errors.js", input: in("how", "tick"), limit: 5 * time.Second, want: userError, after: tells("from nowhere"), stays: true},
	{id: "C7 toJSON", file: "c7-late-errors.js", input: in("how", "toJSON"), limit: 5 * time.Second, want: userError, after: tells("from nowhere"), stays: true},
	{id: "C7 getter", file: "c7-late-errors.js", input: in("how", "getter"), limit: 5 * time.Second, want: userError, after: tells("from nowhere"), stays: true},
	{id: "C7 proxy", file: "c7-late-errors.js", input: in("how", "proxy"), limit: 5 * time.Second, want: userError, stays: true},
	{id: "C7 late", file: "c7-late-errors.js", input: in("how", "late"), limit: 5 * time.Second, want: answered, after: nextIsWell, stays: true},
	{id: "C8", file: "c8-threads.js", limit: 5 * time.Second, want: append(answered, "sandbox_lost/pids", "out_of_memory"), gone: true, only: []string{"runc"}, after: threadsRefused},
	{id: "C8 guest", file: "c8-threads.js", limit: 5 * time.Second, want: append(answered, "sandbox_lost/pids", "sandbox_lost/crashed", "out_of_memory"), only: []string{"gvisor"}},
	{id: "C10", file: "c10-pids-crash.js", limit: 10 * time.Second, want: atLimit, gone: true, before: fewProcesses},
	{id: "C9", file: "c9-native-addon.js", limit: 10 * time.Second, want: answered, after: held(5), stays: true},
}

// D: files.
var fileAttacks = []attack{
	{id: "D1", file: "d1-inodes.js", limit: 10 * time.Second, want: answered, after: held(3), stays: true, only: []string{"runc"}},
	// gVisor counts no inodes: what files cost is the sandbox's own memory.
	{id: "D1 no limit", file: "d1-inodes.js", input: in("endless", true), limit: 2 * time.Second, want: append(timeout, outOfMemory...), only: []string{"gvisor"}},
	{id: "D2", file: "d2-sparse.js", limit: 5 * time.Second, want: answered, after: held(3), stays: true},
	{id: "D3", file: "d3-descriptors.js", limit: 5 * time.Second, want: answered, after: held(3), stays: true},
	{id: "D5", file: "d5-writes.js", limit: 5 * time.Second, want: answered, after: all(held(60), diesFirst), stays: true},
	{id: "D6", file: "d6-others.js", limit: 5 * time.Second, want: answered, after: held(30), stays: true},
	{id: "D7", file: "d7-leave.js", limit: 5 * time.Second, want: answered, after: all(says(`[]`), nobodyFindsIt)},
	{id: "D8", file: "d8-links.js", limit: 5 * time.Second, want: answered, after: held(10), stays: true},
	// A tenant's files under gVisor are in its own memory: there is nothing that the host could open.
	{id: "D8 watched", file: "d8-links.js", limit: 5 * time.Second, want: answered, before: watchFiles, after: all(held(10), nobodyOpened), only: []string{"runc"}},
	{id: "D9", file: "d9-core.js", limit: 5 * time.Second, want: answered, after: held(3), stays: true},
}

// startClock remembers the container's CPU counter.
func startClock(at *attempt) error {
	u, err := at.host.group.Usage()
	at.clock, at.clockAt = u.CPU, time.Now()
	return err
}

// withinQuota wants the container to have had no more than its CPU, as long as there is a container to ask.
func withinQuota(at *attempt) []string {
	u, err := at.host.group.Usage()
	if err != nil {
		return nil // gone with its counters
	}
	const cpus, slack = 1.0, 300 * time.Millisecond
	if spent, most := u.CPU-at.clock, time.Duration(cpus*float64(time.Since(at.clockAt)))+slack; spent > most {
		return []string{fmt.Sprintf("it had %v of CPU, more than %v", spent, most)}
	}
	return nil
}

// quietSoon wants what burns without a call to stop burning: frozen or gone.
func quietSoon(at *attempt) []string {
	const window, looks = 200 * time.Millisecond, 75 // longer than an idle container stays unfrozen
	var burned time.Duration
	for range looks {
		before, err := at.host.group.Usage()
		if err != nil {
			return nil
		}
		time.Sleep(window)
		after, err := at.host.group.Usage()
		if err != nil {
			return nil
		}
		if burned = after.CPU - before.CPU; burned < 2*time.Millisecond {
			return nil
		}
	}
	return []string{fmt.Sprintf("with no call it still burns %v in %v", burned, window)}
}

// goneSoon wants the container's processes dead within a second of the answer.
func goneSoon(at *attempt) []string {
	began := time.Now()
	for {
		pids, err := at.host.group.Procs()
		if err != nil || len(pids) == 0 {
			return nil
		}
		if took := time.Since(began); took > time.Second+at.pulse.slack(began) {
			return []string{fmt.Sprintf("what ignores signals was there for %v: processes %v", took, pids)}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// freshGone wants nothing of the container that answered a fresh call to be there any more.
func freshGone(at *attempt) []string {
	id := at.answer.container
	if id == "" || id == at.container {
		return []string{fmt.Sprintf("a fresh call was served by %q", id)}
	}
	groups, err := cgroup.Detect()
	if err != nil {
		return []string{err.Error()}
	}
	gone := &inside{tokens: []string{id}, group: groups.At("paddock/" + at.service.id + "/" + id)}
	if left := gone.traces(at.service); len(left) > 0 {
		return []string{"left after the answer to a fresh call: " + strings.Join(left, "; ")}
	}
	return nil
}

// nextIsWell wants the next call in the same container to hear nothing of what the one before left behind.
func nextIsWell(at *attempt) []string {
	next, err := at.runSource(nextSource, nil, 20*time.Second, false)
	if at.answer.kind == "timeout" && next.kind == "sandbox_lost/killed" {
		// Where the machine is slow its agent may not have been heard in time, and the container was replaced under the call.
		next, err = at.runSource(nextSource, nil, 20*time.Second, false)
		at.container = next.container
	}
	if err != nil || next.kind != "ok" || string(next.body) != `"well"` || next.container != at.container {
		return []string{fmt.Sprintf("the next call ended as %s in %s: %.200s %v", next.kind, next.container, next.body, err)}
	}
	return nil
}

const nextSource = `module.exports = () => new Promise((yes) => setTimeout(yes, 200, 'well'))`

// nobodyFindsIt looks for the marks as other tenants.
func nobodyFindsIt(at *attempt) (wrong []string) {
	source, err := at.source()
	if err != nil {
		return []string{err.Error()}
	}
	for i := range 2 {
		other := *at
		other.tenant = fmt.Sprintf("%s-other%d", at.tenant, i)
		if other.key, err = at.service.admit(other.tenant, nil); err != nil {
			return []string{err.Error()}
		}
		got, err := other.runSource(source, nil, 5*time.Second, false)
		if err != nil || string(got.body) != "[]" || got.container == at.container {
			wrong = append(wrong, fmt.Sprintf("another tenant found %s in %s: %v", got.body, got.container, err))
		}
		if err := at.service.operator("DELETE", "/v1/tenants/"+other.tenant, "", nil, nil); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	return wrong
}

// noSwap wants the limit of memory and swap together to be the limit of memory.
func noSwap(at *attempt) error {
	l, err := at.host.group.Limits()
	if err != nil {
		return err
	}
	if l.MemoryBytes <= 0 || l.SwapBytes > 0 {
		return fmt.Errorf("its limits are %+v", l)
	}
	return nil
}

// threadsRefused wants the attack to have got fewer threads than it asked for, if it could still tell.
func threadsRefused(at *attempt) []string {
	if at.answer.kind != "ok" {
		return nil
	}
	return held(1)(at)
}

// fewProcesses leaves the container room for some more processes and threads, so that it comes to its limit before it comes to
// that of its memory.
func fewProcesses(at *attempt) error {
	u, err := at.host.group.Usage()
	if err != nil {
		return err
	}
	return at.setGroup("pids.max", "pids.max", fmt.Sprint(u.Pids+30))
}

// diesFirst wants the kernel to choose the container's processes before all others, whatever they wrote.
func diesFirst(at *attempt) (wrong []string) {
	pids, err := at.host.group.Procs()
	if err != nil || len(pids) == 0 {
		return []string{fmt.Sprintf("its processes are %v, %v", pids, err)}
	}
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		if err == nil && strings.TrimSpace(string(b)) != "1000" {
			wrong = append(wrong, fmt.Sprintf("process %d has oom_score_adj %s", pid, strings.TrimSpace(string(b))))
		}
	}
	return wrong
}
