package catalog

import (
	"sync"

	"paddock/internal/tenant"
)

// ChangeKind says what changed.
type ChangeKind uint8

// The kinds of changes. TenantChanged means that its policy or state did: it may be suspended or being deleted now.
const (
	TenantChanged ChangeKind = iota + 1
	TenantRemoved
	KeyChanged
	KeyRemoved
	FunctionChanged
	FunctionRemoved
	SecretChanged
	SecretRemoved
	PipelineChanged
	PipelineRemoved
	ControllerChanged // Name is its id
	ControllerRemoved
	RuntimeChanged // Name is the runtime
	HoldingChanged // which controllers have containers of the tenant
)

// Change names something that is not as it was; how it is now is for the View to say.
type Change struct {
	Kind   ChangeKind
	Tenant tenant.ID // "" for an operator's key
	Name   string    // the key's id, the function's or pipeline's name, or the secret's with "@function" behind
}

// broadcaster hands changes to subscribers and never waits for one.
type broadcaster struct {
	mu   sync.Mutex
	subs map[*Subscription]bool
}

func newBroadcaster() *broadcaster { return &broadcaster{subs: map[*Subscription]bool{}} }

func (b *broadcaster) subscribe() *Subscription {
	s := &Subscription{from: b, wake: make(chan struct{}, 1), seen: map[Change]bool{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs[s] = true
	return s
}

func (b *broadcaster) send(changes []Change) {
	if len(changes) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.add(changes)
	}
}

// Subscription collects changes until they are taken. A change that is taken late is there once: what waits is bounded
// by what exists.
type Subscription struct {
	from *broadcaster
	wake chan struct{}
	mu   sync.Mutex
	todo []Change
	seen map[Change]bool
}

// C delivers when there is something to Take.
func (s *Subscription) C() <-chan struct{} { return s.wake }

// Take returns the changes since the last Take, in the order in which they first happened.
func (s *Subscription) Take() []Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	todo := s.todo
	s.todo = nil
	clear(s.seen)
	return todo
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.from.mu.Lock()
	defer s.from.mu.Unlock()
	delete(s.from.subs, s)
}

func (s *Subscription) add(changes []Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		if !s.seen[c] {
			s.seen[c] = true
			s.todo = append(s.todo, c)
		}
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// NeverChanges returns a Subscription to a catalogue that stays as it is.
func NeverChanges() *Subscription { return newBroadcaster().subscribe() }
