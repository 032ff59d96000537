package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"paddock/internal/call"
)

// newContainerLocked enters a container with its uids and its charge; the caller starts its creation or adoption.
func (p *Pool) newContainerLocked(id ContainerID, uid uint32, size, limit int64, digest string, created time.Time) *container {
	c := &container{
		id: id, uid: uid, size: size, limit: limit, digest: digest, created: created, door: noDoor{},
		tally: p.images.count(digest), lost: make(chan struct{}), gone: make(chan struct{}),
	}
	c.idleNode.v, c.awakeNode.v, c.readyNode.v, c.thawNode.v = c, c, c, c
	c.timer.fire = func(now time.Time) { p.visitLocked(c, now) }
	p.containers[id] = c
	p.states[Creating]++
	p.stockLocked(size).creating++
	p.chargeLocked(c, limit)
	return c
}

// launchLocked begins the creation of one container. It fails only for want of uids.
func (p *Pool) launchLocked(size int64, now time.Time) error {
	id := newContainerID()
	uid, err := p.uids.take(id)
	if err != nil {
		return err
	}
	image := p.images.choose(now)
	c := p.newContainerLocked(id, uid, size, p.limitOf(size), image.Digest, now)
	c.image = image
	c.cpu = p.cfg.CPUMillis
	p.laterLocked(func() { p.create(c) })
	return nil
}

// create makes c Ready or fails it; teardown then undoes whatever part of it exists.
func (p *Pool) create(c *container) {
	began := time.Now()
	err := p.make(c)
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	if err != nil {
		p.counts.createFailed++
		if p.phase == phaseOpen {
			p.cfg.Logger.Error("a container could not be created", "container", c.id, "err", err, "output", tail(c))
			if !p.images.failed(c.digest, now) {
				p.refill.failed(now)
			}
		}
		p.failLocked(c, CauseCreate, now)
		return
	}
	p.counts.created++
	p.images.succeeded(c.digest)
	p.refill.succeeded(now.Sub(began))
	p.becomeReadyLocked(c, now)
	if c.state == Ready {
		p.stockLocked(c.size).ready.pushBack(&c.readyNode)
		p.visitLocked(c, now)
		p.dispatchLocked(now)
	}
}

// becomeReadyLocked is the end of creation and of adoption. A container that was drained meanwhile drains now.
func (p *Pool) becomeReadyLocked(c *container, now time.Time) {
	p.setStateLocked(c, Ready)
	c.readyAt = now
	p.laterLocked(func() { p.watch(c) })
	if c.doomed != "" {
		p.drainLocked(c, c.doomed, now)
		return
	}
	select {
	case <-p.warm:
	default:
		close(p.warm)
	}
}

// make does the slow part of creation: directories, link, door, engine, HELLO. What it has made stands in c.
func (p *Pool) make(c *container) error {
	dir := p.cfg.linkDir(c.id)
	if err := os.Mkdir(p.cfg.secretDir(c.id), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // Mkdir is under the umask
		return err
	}
	if err := p.open(c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.CreateTimeout)
	defer cancel()
	c.attempts = true
	engine, err := p.cfg.Engine.Create(ctx, Spec{
		ID: c.id, Image: c.image, UID: c.uid, LinkDir: dir,
		MemoryBytes: c.size, CPUMillis: p.cfg.CPUMillis, Pids: p.cfg.Pids, TmpBytes: p.cfg.TmpBytes,
	})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	c.engine = engine
	end := p.giveWay(c)
	err = p.hello(c, p.cfg.HelloTimeout, false)
	if e := end(); err == nil {
		err = e
	}
	return err
}

// open makes the sockets in c's directory.
func (p *Pool) open(c *container) error {
	dir := p.cfg.linkDir(c.id)
	l, err := p.cfg.Listen(dir, c.uid, c.uid)
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	c.listener = l
	if p.cfg.OpenDoor == nil {
		return nil
	}
	d, err := p.cfg.OpenDoor(dir, c.uid, c.uid, c.id)
	if err != nil {
		return fmt.Errorf("egress: %w", err)
	}
	c.door = d
	if n, ok := d.(callNamer); ok {
		n.NameCalls(func() call.ID { return p.onlyCall(c) })
	}
	return nil
}

var errExited = errors.New("the container ended before it said HELLO")

// hello waits for c's agent; Ready means that the inside said so. adopted: c is a tenant's already.
func (p *Pool) hello(c *container, limit time.Duration, adopted bool) error {
	ctx, cancel := context.WithTimeout(p.ctx, limit)
	defer cancel()
	ctx, exited := context.WithCancelCause(ctx)
	defer exited(nil)
	go func() { // ends with ctx at the latest
		select {
		case <-c.engine.Exited():
			exited(errExited)
		case <-ctx.Done():
		}
	}()
	conn, err := c.listener.Accept(ctx, LinkOptions{Container: c.id, OnLog: p.onLog, Adopted: adopted})
	if err != nil {
		if context.Cause(ctx) == errExited {
			err = fmt.Errorf("%w (code %d, signal %d)", errExited, c.engine.Exit().Code, c.engine.Exit().Signal)
		}
		return fmt.Errorf("hello: %w", err)
	}
	c.conn = conn
	return nil
}

func (p *Pool) onLog(line call.LogLine) { p.cfg.Observer.LogLine(line) }

// tail returns the last raw output of c for the operator's log.
func tail(c *container) string {
	if c.engine == nil {
		return ""
	}
	out := c.engine.Output()
	return fmt.Sprintf("%q", out[max(0, len(out)-2048):])
}
