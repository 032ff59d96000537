package link_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/pool/link"
	"paddock/pool/link/linktest"
)

// Code that was loaded ahead is not sent again with the call, whoever loads it how often.
func TestLoadAhead(t *testing.T) {
	var loads atomic.Int64
	source := bytes.Repeat([]byte("// 16 bytes long\n"), 3*link.MaxBody/16)
	c, _ := pair(t, link.Options{}, linktest.Options{Load: func(_ *linktest.Agent, _ link.LoadHead, got []byte) *linktest.Thrown {
		if loads.Add(1); !bytes.Equal(got, source) {
			t.Error("the code came in pieces that do not fit")
		}
		return nil
	}})
	code := codeOf(string(source))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := c.Load(context.Background(), code); err != nil {
				t.Error(err)
			}
			if loads.Load() == 0 {
				t.Error("Load returned before the agent had the code")
			}
		})
	}
	wg.Wait()
	req := request("1")
	req.Code = code
	res, err := c.Do(context.Background(), req, nil, nil)
	if err != nil || res.Stages.Load != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	if err := c.Load(context.Background(), call.Code{Hash: code.Hash}); err != nil {
		t.Errorf("known code without its source: %v", err)
	}
	if n := loads.Load(); n != 1 {
		t.Errorf("%d LOADs", n)
	}
	if c.Running() != 0 {
		t.Errorf("running %d", c.Running())
	}
}

// Code that does not compile is reported, and tried again by whoever wants it next.
func TestLoadAheadFails(t *testing.T) {
	var loads atomic.Int64
	c, _ := pair(t, link.Options{}, linktest.Options{Load: func(*linktest.Agent, link.LoadHead, []byte) *linktest.Thrown {
		loads.Add(1)
		return &linktest.Thrown{ErrorHead: link.ErrorHead{Name: "SyntaxError", Message: "no", Line: 3}}
	}})
	for i := range 2 {
		e := wantKind(t, c.Load(context.Background(), codeOf("x")), errs.LoadError, errs.StartedNo)
		if e.Thrown == nil || e.Thrown.Line != 3 || loads.Load() != int64(i+1) {
			t.Errorf("%+v after %d LOADs", e.Thrown, loads.Load())
		}
	}
	wantKind(t, c.Load(context.Background(), call.Code{Hash: "unknown"}), errs.Internal, errs.StartedMaybe)
}

// An agent that does not answer holds up Load no longer than its context, and one that goes away not at all.
func TestLoadAheadWithoutAnswer(t *testing.T) {
	c, a := pair(t, link.Options{}, linktest.Options{})
	unstick := a.Stick()
	defer unstick()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	wantKind(t, c.Load(ctx, codeOf("x")), errs.Timeout, errs.StartedNo)
	gone, leave := context.WithCancel(context.Background())
	leave()
	wantKind(t, c.Load(gone, codeOf("x")), errs.Cancelled, errs.StartedNo)
	failed := make(chan error, 1)
	go func() { failed <- c.Load(context.Background(), codeOf("x")) }()
	c.Close()
	wantKind(t, <-failed, errs.SandboxLost, errs.StartedNo)
	wantKind(t, c.Load(context.Background(), codeOf("x")), errs.SandboxLost, errs.StartedNo)
}

// A stuck agent's queue does not grow without end.
func TestLoadAheadIsBounded(t *testing.T) {
	c, a := pair(t, link.Options{QueueBytes: 1 << 20}, linktest.Options{})
	unstick := a.Stick()
	defer unstick()
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nobody waits for the answers
	limited := false
	for i := range 64 {
		err := c.Load(ctx, codeOf(fmt.Sprint(i)+string(make([]byte, 256<<10))))
		limited = limited || errs.Is(err, errs.Limited)
		if q := c.Queued(); q > 2<<20 {
			t.Fatalf("%d bytes queued", q)
		}
	}
	if !limited {
		t.Error("never refused")
	}
}

// Before a container is somebody's, no code gets in.
func TestLoadAheadNeedsATenant(t *testing.T) {
	dir := shortDir(t)
	ln, err := link.Listen(dir, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	agents := make(chan *linktest.Agent, 1)
	go func() {
		a, err := linktest.Dial(context.Background(), filepath.Join(dir, link.SocketName), linktest.Options{})
		if err != nil {
			t.Error(err)
		}
		agents <- a
	}()
	c, err := ln.Accept(context.Background(), link.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer (<-agents).Close()
	wantKind(t, c.Load(context.Background(), codeOf("x")), errs.Internal, errs.StartedMaybe)
	if c.Queued() != 0 {
		t.Error("something is on its way")
	}
}
