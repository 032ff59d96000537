package pool

import (
	"context"
	"fmt"
	"time"
)

// What is made ahead of calls gives way to them: until it has said HELLO, a container that nobody waits for runs only while no
// other one wants to. A sandbox takes a core for a third of a second to boot, and one tenant alone can cause the making of one a
// second. That a tenant waits which itself uses more than its share is no reason to hurry: see share.go.

// aheadFor is how long a container gives way: where the others leave nothing over for so long, warm ones will be needed all the more.
const aheadFor = 2 * time.Second

// giveWay has c yield until somebody waits, at most for aheadFor. end ends that, and returns when c runs like the others.
func (p *Pool) giveWay(c *container) (end func() error) {
	hurry := p.unhurried()
	if hurry == nil {
		return func() error { return nil }
	}
	ctx, stop := context.WithTimeout(p.ctx, aheadFor)
	over := make(chan error, 1)
	go func() { // ends with ctx at the latest
		over <- p.yieldUntil(ctx, c, hurry)
	}()
	return func() error {
		stop()
		return <-over
	}
}

func (p *Pool) yieldUntil(ctx context.Context, c *container, hurry <-chan struct{}) error {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.cfg.EngineTimeout)
	defer cancel()
	if err := c.engine.Yield(limited, true); err != nil {
		return nil // as it is, it runs like the others
	}
	select {
	case <-hurry:
	case <-ctx.Done():
	}
	limited, cancel = context.WithTimeout(context.WithoutCancel(ctx), p.cfg.EngineTimeout)
	defer cancel()
	if err := c.engine.Yield(limited, false); err != nil {
		return fmt.Errorf("it runs behind all others, and that cannot be changed: %w", err)
	}
	return nil
}

// unhurried returns what is closed when somebody begins to wait for a container, nil if somebody does.
func (p *Pool) unhurried() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.stocks {
		for n := s.ring.head; n != nil; n = n.next {
			if !n.v.yielding {
				return nil
			}
		}
	}
	if p.hurry == nil {
		p.hurry = make(chan struct{})
	}
	return p.hurry
}

// hurryLocked tells what is being made that t waits, for whom no warm one is there.
func (p *Pool) hurryLocked(t *tenantState) {
	if p.hurry != nil && !t.yielding {
		close(p.hurry)
		p.hurry = nil
	}
}
