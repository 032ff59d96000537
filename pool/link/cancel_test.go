package link_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"paddock/internal/errs"
	"paddock/internal/testenv"
	"paddock/pool/link"
	"paddock/pool/link/linktest"
)

// obedient waits for CANCEL and then ends.
func obedient(ctx context.Context, _ *linktest.Call) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestDeadline(t *testing.T) {
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: obedient})
	r := request("1")
	r.Deadline = time.Now().Add(200 * time.Millisecond)
	settled := make(chan struct{})
	_, err := c.Do(context.Background(), r, nil, func() { close(settled) })
	wantKind(t, err, errs.Timeout, errs.StartedMaybe)
	<-settled
	if c.Running() != 0 || c.TaintReason() != "" {
		t.Errorf("running %d, tainted %q", c.Running(), c.TaintReason())
	}
	r.Deadline = time.Now().Add(-time.Second)
	calls := 0
	_, err = c.Do(context.Background(), r, nil, func() { calls++ })
	wantKind(t, err, errs.Timeout, errs.StartedNo)
	if calls != 1 {
		t.Errorf("settled %d times", calls)
	}
}

func TestCancelled(t *testing.T) {
	inside := make(chan struct{}, 1)
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(ctx context.Context, k *linktest.Call) ([]byte, error) {
		inside <- struct{}{}
		return obedient(ctx, k)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	settled := make(chan struct{})
	go func() { <-inside; cancel() }()
	_, err := c.Do(ctx, request("1"), nil, func() { close(settled) })
	wantKind(t, err, errs.Cancelled, errs.StartedMaybe)
	<-settled
	_, err = c.Do(ctx, request("1"), nil, nil)
	wantKind(t, err, errs.Cancelled, errs.StartedNo)
}

func TestSinkFails(t *testing.T) {
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(ctx context.Context, k *linktest.Call) ([]byte, error) {
		k.Head(200)
		for {
			if err := k.Data(make([]byte, 10_000)); err != nil {
				return nil, err
			}
		}
	}})
	r := request("1")
	r.Via = 1
	settled := make(chan struct{})
	_, err := c.Do(context.Background(), r, &recorder{fail: errors.New("gone")}, func() { close(settled) })
	wantKind(t, err, errs.Cancelled, errs.StartedMaybe)
	<-settled
}

// A sink that blocks holds Do up, but the code is told at the deadline.
func TestDeadlineWhileSinkBlocks(t *testing.T) {
	ended := make(chan struct{})
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(ctx context.Context, k *linktest.Call) ([]byte, error) {
		defer close(ended)
		k.Head(200)
		k.Data([]byte("x"))
		return obedient(ctx, k)
	}})
	r := request("1")
	r.Via, r.Deadline = 1, time.Now().Add(200*time.Millisecond)
	sink := &recorder{gate: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		_, err := c.Do(context.Background(), r, sink, nil)
		done <- err
	}()
	<-ended
	close(sink.gate)
	wantKind(t, <-done, errs.Timeout, errs.StartedMaybe)
}

func TestStuck(t *testing.T) {
	c, a := pair(t, link.Options{}, linktest.Options{})
	if _, err := c.Do(context.Background(), request("1"), nil, nil); err != nil {
		t.Fatal(err)
	}
	a.Stick()
	var settled atomic.Int64
	r := request("1")
	began := time.Now()
	r.Deadline = began.Add(200 * time.Millisecond)
	_, err := c.Do(context.Background(), r, nil, func() { settled.Add(1) })
	wantKind(t, err, errs.Timeout, errs.StartedMaybe)
	if d := time.Since(began); d > testenv.Patience(20*time.Second) { // the agent would never let it go
		t.Errorf("the caller waited %v", d)
	}
	<-c.Tainted()
	if d := time.Since(began); c.TaintReason() != link.TaintStuck || d < 450*time.Millisecond || d > testenv.Patience(20*time.Second) {
		t.Errorf("tainted %q after %v", c.TaintReason(), d)
	}
	if settled.Load() != 0 || c.Running() != 1 {
		t.Errorf("settled %d, running %d", settled.Load(), c.Running())
	}
	c.Close()
	if settled.Load() != 1 || c.Running() != 0 {
		t.Errorf("after Close: settled %d, running %d", settled.Load(), c.Running())
	}
}

// TestBusyIsNotStuck: while the agent gets on with what came before CANCEL, it is no loop without end; but not for ever.
func TestBusyIsNotStuck(t *testing.T) {
	c, a := pair(t, link.Options{}, linktest.Options{Handler: obedient})
	r := request("1")
	r.Deadline = time.Now().Add(200 * time.Millisecond)
	settled := make(chan struct{})
	unstick := a.Stick()
	stop, busy := make(chan struct{}), sync.WaitGroup{}
	defer busy.Wait()
	defer close(stop)
	busy.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				a.Log("info", "another call's work")
			}
		}
	})
	_, err := c.Do(context.Background(), r, nil, func() { close(settled) })
	wantKind(t, err, errs.Timeout, errs.StartedMaybe)
	select {
	case <-c.Tainted():
		t.Fatalf("tainted %q while the agent gets on", c.TaintReason())
	case <-time.After(800 * time.Millisecond):
	}
	unstick()
	<-settled
	if c.Running() != 0 || c.TaintReason() != "" {
		t.Errorf("running %d, tainted %q", c.Running(), c.TaintReason())
	}
	a.Stick()
	began := time.Now()
	r.Deadline = began.Add(100 * time.Millisecond)
	_, err = c.Do(context.Background(), r, nil, nil)
	wantKind(t, err, errs.Timeout, errs.StartedMaybe)
	<-c.Stuck()
	if d := time.Since(began); d < 2*time.Second {
		t.Errorf("stuck after %v", d)
	}
}

func TestManyUnsettled(t *testing.T) {
	c, a := pair(t, link.Options{}, linktest.Options{Handler: func(ctx context.Context, k *linktest.Call) ([]byte, error) {
		k.Answer([]byte("1"))
		return linktest.Hang(ctx, k)
	}})
	var settled atomic.Int64
	for i := range 65 {
		select {
		case <-c.Tainted():
			t.Fatalf("tainted after %d", i)
		default:
		}
		if _, err := c.Do(context.Background(), request("1"), nil, func() { settled.Add(1) }); err != nil {
			t.Fatal(err)
		}
	}
	<-c.Tainted()
	if c.TaintReason() != link.TaintUnsettled || c.Running() != 65 || settled.Load() != 0 {
		t.Errorf("%q, running %d, settled %d", c.TaintReason(), c.Running(), settled.Load())
	}
	a.Close()
	<-c.Done()
	c.Close()
	if settled.Load() != 65 {
		t.Errorf("settled %d", settled.Load())
	}
}

func TestLateSettle(t *testing.T) {
	release := make(chan struct{})
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
		k.Answer([]byte("1"))
		<-release
		return nil, nil
	}})
	settled := make(chan struct{})
	if _, err := c.Do(context.Background(), request("1"), nil, func() { close(settled) }); err != nil {
		t.Fatal(err)
	}
	if c.Running() != 1 {
		t.Errorf("running %d", c.Running())
	}
	close(release)
	<-settled
	if c.Running() != 0 {
		t.Errorf("running %d", c.Running())
	}
}

func TestCrash(t *testing.T) {
	inside := make(chan struct{}, 32)
	c, a := pair(t, link.Options{}, linktest.Options{Handler: func(ctx context.Context, k *linktest.Call) ([]byte, error) {
		inside <- struct{}{}
		return linktest.Hang(ctx, k)
	}})
	var wg sync.WaitGroup
	var settled atomic.Int64
	for range 32 {
		wg.Go(func() {
			_, err := c.Do(context.Background(), request("1"), nil, func() { settled.Add(1) })
			if e := wantKind(t, err, errs.SandboxLost, errs.StartedMaybe); e.Cause != "crashed" {
				t.Errorf("cause %q", e.Cause)
			}
		})
	}
	for range 32 {
		<-inside
	}
	a.Close()
	wg.Wait()
	<-c.Done()
	if c.Err() == nil || errors.Is(c.Err(), link.ErrBreach) || settled.Load() != 32 {
		t.Errorf("err %v, settled %d", c.Err(), settled.Load())
	}
}

func TestCloseDuringCalls(t *testing.T) {
	inside := make(chan struct{}, 1)
	c, _ := pair(t, link.Options{}, linktest.Options{Handler: func(ctx context.Context, k *linktest.Call) ([]byte, error) {
		inside <- struct{}{}
		return linktest.Hang(ctx, k)
	}})
	done := make(chan error, 1)
	go func() {
		_, err := c.Do(context.Background(), request("1"), nil, nil)
		done <- err
	}()
	<-inside
	c.Close()
	if e := wantKind(t, <-done, errs.SandboxLost, errs.StartedMaybe); e.Cause != "killed" {
		t.Errorf("cause %q", e.Cause)
	}
	if !errors.Is(c.Err(), link.ErrClosed) {
		t.Errorf("err %v", c.Err())
	}
}

// An agent that reads nothing: what the kernel's buffer does not take waits, then is limited; deadlines hold; what was not
// handed over has not started.
func TestAgentReadsNothing(t *testing.T) {
	c, a := pair(t, link.Options{QueueBytes: 10 * 61_000}, linktest.Options{})
	if _, err := c.Do(context.Background(), request("1"), nil, nil); err != nil {
		t.Fatal(err)
	}
	a.Stick()
	body := string(make([]byte, 60_000))
	began := time.Now()
	var wg sync.WaitGroup
	try := func(kind errs.Kind, started errs.Started) {
		running := c.Running()
		wg.Go(func() {
			r := request(body)
			r.Deadline = began.Add(3 * time.Second)
			var settled atomic.Int64
			_, err := c.Do(context.Background(), r, nil, func() { settled.Add(1) })
			wantKind(t, err, kind, started)
			if (settled.Load() == 1) != (started == errs.StartedNo) {
				t.Errorf("%s, started %s: settled %d times", kind, started, settled.Load())
			}
		})
		if kind == errs.Timeout {
			testenv.Await(t, "the call is queued", func() bool { return c.Running() > running })
		}
	}
	for c.Queued() == 0 { // until the socket is full and a batch of one call waits for it
		try(errs.Timeout, errs.StartedMaybe)
		time.Sleep(10 * time.Millisecond)
	}
	running := c.Running()
	for range 9 {
		try(errs.Timeout, errs.StartedNo)
	}
	for range 20 {
		try(errs.Limited, errs.StartedNo)
	}
	wg.Wait()
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("callers waited %v", d)
	}
	if n := c.Running(); n != running {
		t.Errorf("running %d, may have started %d", n, running)
	}
}

func TestListenAgain(t *testing.T) {
	dir := shortDir(t)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	defer func() { cancel(); <-served }()
	path := filepath.Join(dir, link.SocketName)
	left, err := link.Listen(dir, 0, 0) // a former process's, still there
	if err != nil {
		t.Fatal(err)
	}
	ln, err := link.Listen(dir, 1000, 1000)
	if err != nil {
		t.Fatal(err)
	}
	go func() { served <- linktest.Serve(ctx, path, linktest.Options{Reconnect: true}) }()
	for want := range 3 {
		c, err := ln.Accept(context.Background(), link.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c.Bind("acme", nil)
		if got := c.Hello().Reconnects; got < want {
			t.Errorf("reconnects %d, want at least %d", got, want)
		}
		if _, err := c.Do(context.Background(), request("1"), nil, nil); err != nil {
			t.Errorf("connection %d: %v", want, err)
		}
		if want == 2 {
			defer c.Close()
			break
		}
		if ln, err = link.Listen(dir, 0, 0); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	left.Close()
}

func TestAcceptHonoursContext(t *testing.T) {
	ln, err := link.Listen(shortDir(t), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := ln.Accept(ctx, link.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := ln.Close(); err != nil {
		t.Errorf("Close after Accept: %v", err)
	}
}

func TestOtherProtocol(t *testing.T) {
	dir := shortDir(t)
	ln, err := link.Listen(dir, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	go linktest.Serve(t.Context(), filepath.Join(dir, link.SocketName), linktest.Options{Hello: link.Hello{Protocol: 7}})
	if _, err := ln.Accept(context.Background(), link.Options{}); !errors.Is(err, link.ErrVersion) {
		t.Errorf("error %v", err)
	}
}
