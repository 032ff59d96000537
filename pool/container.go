package pool

import (
	"fmt"
	"sync"
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
	"paddock/runtimes"
)

// State is where a container is in its life.
type State uint8

// The states. Frozen is not one: it is an assigned container with its power off.
const (
	Creating  State = iota // being made; nobody can use it
	Ready                  // warm, nobody's; nothing of any tenant has ever entered it
	Assigned               // one tenant's, until it is destroyed
	Draining               // takes no new call; calls in flight may finish
	Failed                 // lost, or its creation failed
	Destroyed              // nothing of it is left
	numStates
)

var stateNames = [numStates]string{"creating", "ready", "assigned", "draining", "failed", "destroyed"}

func (s State) String() string { return stateNames[s] }

// edges is the whole table of what may follow what. No edge leads back to Ready: a container serves at most one tenant
// in its life.
var edges = [numStates][]State{
	Creating: {Ready, Failed},
	Ready:    {Assigned, Draining, Failed},
	Assigned: {Draining, Failed},
	Draining: {Destroyed, Failed},
	Failed:   {Destroyed},
}

func mayBecome(from, to State) bool {
	for _, s := range edges[from] {
		if s == to {
			return true
		}
	}
	return false
}

// setStateLocked is the only writer of a container's state. An edge that the table does not have is a bug that could hand
// one tenant's container to another, so it ends the process; the containers are adopted by the next one.
func (p *Pool) setStateLocked(c *container, to State) {
	if !mayBecome(c.state, to) {
		panic(fmt.Sprintf("pool: container %s: %s must not become %s", c.id, c.state, to))
	}
	if c.state == Creating {
		p.stockLocked(c.size).creating--
	}
	p.states[c.state]--
	p.states[to]++
	c.state = to
}

// Cause says why a container was taken out of service. It is in the metric, the log line and the event.
type Cause string

// Causes of draining, and of failing.
const (
	CauseIdle     Cause = "idle"
	CauseMaxLife  Cause = "max_life"
	CauseMaxCalls Cause = "max_calls"
	CauseMaxAge   Cause = "max_age"
	CauseEvicted  Cause = "evicted"
	CauseTainted  Cause = "tainted"
	CauseRollout  Cause = "rollout"
	CausePolicy   Cause = "policy"
	CauseSurplus  Cause = "surplus"
	CauseShutdown Cause = "shutdown"
	CauseAdmin    Cause = "admin"
	CauseRemoved  Cause = "removed" // its tenant was deleted
	CauseFresh    Cause = "fresh"   // it served the one call that it was for

	CauseCrashed     Cause = "crashed"
	CauseOutOfMemory Cause = "out_of_memory"
	CausePids        Cause = "pids"
	CauseProtocol    Cause = "protocol"
	CauseStuck       Cause = "stuck"         // did not answer CANCEL
	CauseOverdue     Cause = "overdue"       // calls outlived drain_timeout
	CauseCreate      Cause = "create_failed" // never became Ready
	CauseFreeze      Cause = "freeze_failed"
	CauseThaw        Cause = "thaw_failed"
	CauseBind        Cause = "bind_failed"
	CauseAdopt       Cause = "adopt_failed" // found after a restart and not usable
	CauseVanished    Cause = "vanished"     // the engine does not know it any more
)

// power says whether an assigned container can take a call right now.
type power uint8

const (
	powerOn       power = iota
	powerBinding        // the latch is being written
	powerFreezing       // an engine call is under way
	powerFrozen         //
	powerQueued         // frozen, wanted, and waiting for memory
	powerThawing        // an engine call is under way
)

// container is one sandbox from before its creation until nothing is left of it. The pool owns it; engine, conn and door
// are set by the goroutine that makes it, before it becomes Ready, and are safe for concurrent use. Everything under the
// line is guarded by Pool.mu. What must outlive this process is not here: whose it is stands in its latch, what it is the
// engine knows.
type container struct {
	id      ContainerID
	uid     uint32
	size    int64 // Spec.MemoryBytes
	limit   int64 // bytes of its cgroup
	digest  string
	image   runtimes.Image // that it is being made of
	created time.Time

	engine   Container // nil: Create has not returned one
	attempts bool      // Create was called: something may exist even if it failed
	listener Listener
	conn     Conn
	door     Door

	rules sync.Mutex    // puts the newest rules and limits last
	lost  chan struct{} // closed when loss is set
	gone  chan struct{} // closed at Destroyed

	// ---- guarded by Pool.mu

	state      State
	cause      Cause // why it is out of service
	doomed     Cause // drained while Creating
	readyAt    time.Time
	tearing    bool // teardown has begun
	drainUntil time.Time
	failures   int // of teardown
	charge     int64
	cpu        int64     // thousandths that its control group has; 0: not known
	dueAt      time.Time // when its successor was looked for first
	loss       *loss
	timer      timer
	tally      *ImageStats // of its image

	tenant   *tenantState
	latch    tenant.ID // what the latch says; set before the first byte of the tenant goes in
	told     bool      // observers know whose it is
	extra    bool      // bound because the tenant's containers on other machines were full
	fresh    bool
	power    power
	start    call.StartKind // of the call that it was assigned for
	changed  chan struct{}  // closed when power changes; nil if nobody waits
	assigned time.Time
	life     time.Duration // the policy's MaxLife with jitter
	served   int64

	inflight  int // slots that callers hold
	suspect   suspicions
	running   int // calls whose code has not ended
	calls     []*flight
	lastHash  string
	recent    []call.Code // the last few codes, for a successor
	idleSince time.Time
	idleNode  node[*container] // in Pool.idle while nothing runs in it
	awakeNode node[*container] // in Pool.awake while it could be frozen as well
	readyNode node[*container] // in Pool.ready
	rest      rest             // while nobody's
	sleepless bool             // stopping it failed once
	thawNode  node[*container] // in Pool.thaws while powerQueued
	successor bool             // one has been asked for

	sampled    time.Time // last look at its CPU
	sampledCPU time.Duration
	sampling   bool
	looked     time.Time // last look because a call failed
	sharing    sharing
	yielding   bool // it runs when nobody else wants to
	spoiled    bool // it ran into a limit
	charged    bool // its end is held against the code that goes on in it
}

// quiet says that nothing of the tenant runs in c.
func (c *container) quiet() bool { return c.inflight == 0 && c.running == 0 }

// ending says that c is being killed or taken down.
func (c *container) ending() bool { return c.loss != nil || c.tearing }

// serving says that c takes calls, now or after a moment.
func (c *container) serving() bool { return c.state == Assigned && !c.fresh }

// recentCodes is how many codes a successor is loaded with.
const recentCodes = 16

// remember notes the code of a call.
func (c *container) remember(req *call.Request) {
	if req.Code.Hash == c.lastHash || req.Code.Hash == "" { // of no code: Warm
		return
	}
	c.lastHash = req.Code.Hash
	if req.Pipeline == "" {
		c.rememberCode(&req.Code)
		return
	}
	for i := range req.Steps {
		c.rememberCode(&req.Steps[i].Code)
	}
}

func (c *container) rememberCode(code *call.Code) {
	for i := range c.recent {
		if c.recent[i].Hash == code.Hash {
			return
		}
	}
	if len(c.recent) < recentCodes {
		c.recent = append(c.recent, *code)
		return
	}
	copy(c.recent, c.recent[1:])
	c.recent[recentCodes-1] = *code
}

// setPowerLocked changes c's power and wakes the calls that wait for it.
func (c *container) setPowerLocked(to power) {
	c.power = to
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// changeLocked returns a channel that closes at the next change of power.
func (c *container) changeLocked() <-chan struct{} {
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.changed
}
