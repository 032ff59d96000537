package link_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/testenv"
	"paddock/pool/link"
	"paddock/pool/link/linktest"
)

// deaf answers nothing and hands its calls out, so that a test can forge what it likes.
func deaf(calls chan *linktest.Call) linktest.Options {
	return linktest.Options{Deaf: true, Handler: func(ctx context.Context, k *linktest.Call) ([]byte, error) {
		calls <- k
		return linktest.Hang(ctx, k)
	}}
}

func TestLateFrames(t *testing.T) {
	calls := make(chan *linktest.Call, 1)
	c, _ := pair(t, link.Options{}, deaf(calls))
	r := request("1")
	r.Deadline = time.Now().Add(200 * time.Millisecond)
	_, err := c.Do(context.Background(), r, nil, nil)
	wantKind(t, err, errs.Timeout, errs.StartedMaybe)
	k := <-calls
	k.Forge(link.TypeHead, 0, []byte(`{"status":200,"headers":[]}`), nil)
	k.Forge(link.TypeData, 0, nil, []byte("late"))
	testenv.Await(t, "both are counted", func() bool { return c.Stats().LateFrames == 2 })
	if err := c.Ping(context.Background()); err != nil {
		t.Fatalf("late frames ended the connection: %v", err)
	}
	c.Later(31 * time.Second)
	k.Forge(link.TypeData, 0, nil, []byte("far too late"))
	<-c.Done()
	if !errors.Is(c.Err(), link.ErrBreach) {
		t.Errorf("ended by %v", c.Err())
	}
}

// A caller that goes away in the middle of a large value: the rest is dropped, the agent gets credit to get rid of it, and the
// stream is forgotten after that.
func TestValueCutOff(t *testing.T) {
	calls := make(chan *linktest.Call, 1)
	c, _ := pair(t, link.Options{}, deaf(calls))
	r := request("1")
	r.Deadline = time.Now().Add(300 * time.Millisecond)
	done := make(chan error, 1)
	var settled atomic.Int64
	go func() {
		_, err := c.Do(context.Background(), r, nil, func() { settled.Add(1) })
		done <- err
	}()
	k := <-calls
	k.Forge(link.TypeResult, link.FlagSettled, nil, []byte(`"begin`))
	wantKind(t, <-done, errs.Timeout, errs.StartedMaybe)
	if settled.Load() != 1 || c.Running() != 0 {
		t.Errorf("settled %d, running %d", settled.Load(), c.Running())
	}
	k.Forge(link.TypeData, 0, nil, []byte("middle"))
	k.Forge(link.TypeData, link.FlagEnd, nil, []byte(`end"`))
	if err := c.Ping(context.Background()); err != nil {
		t.Fatalf("the rest of a value ended the connection: %v", err)
	}
	if n := c.Stats().LateFrames; n != 2 {
		t.Errorf("%d late frames", n)
	}
	k.Forge(link.TypeSettled, 0, nil, nil)
	<-c.Done()
	if !errors.Is(c.Err(), link.ErrBreach) {
		t.Errorf("a second SETTLED: ended by %v", c.Err())
	}
}

func TestUnsettledPastDeadline(t *testing.T) {
	calls := make(chan *linktest.Call, 1)
	c, _ := pair(t, link.Options{}, deaf(calls))
	r := request("1")
	r.Deadline = time.Now().Add(20 * time.Second)
	go func() { (<-calls).Answer([]byte("1")) }()
	if _, err := c.Do(context.Background(), r, nil, nil); err != nil {
		t.Fatal(err)
	}
	c.Later(22 * time.Second)
	select {
	case <-c.Tainted():
		t.Fatal("tainted before 10 s past its deadline")
	case <-time.After(1200 * time.Millisecond): // one inspection
	}
	c.Later(31 * time.Second)
	<-c.Tainted()
	if c.TaintReason() != link.TaintUnsettled {
		t.Errorf("tainted %q", c.TaintReason())
	}
}

func TestStreamsRunOut(t *testing.T) {
	c, _ := pair(t, link.Options{}, linktest.Options{})
	c.Exhaust()
	if _, err := c.Do(context.Background(), request("1"), nil, nil); err != nil {
		t.Fatal(err)
	}
	_, err := c.Do(context.Background(), request("1"), nil, nil)
	wantKind(t, err, errs.NoCapacity, errs.StartedNo)
	<-c.Tainted()
	if c.TaintReason() != link.TaintExhausted {
		t.Errorf("tainted %q", c.TaintReason())
	}
}

func TestOneTenant(t *testing.T) {
	c, _ := pair(t, link.Options{}, linktest.Options{})
	r := request("1")
	r.Tenant = "other"
	settled := 0
	_, err := c.Do(context.Background(), r, nil, func() { settled++ })
	wantKind(t, err, errs.Internal, errs.StartedNo)
	if settled != 1 {
		t.Errorf("settled %d times", settled)
	}
	c.Bind("acme", nil)
	if c.Err() != nil {
		t.Fatal(c.Err())
	}
	c.Bind("other", nil)
	if c.Err() == nil {
		t.Error("two tenants on one connection")
	}
}

func TestLogCreditComesBack(t *testing.T) {
	got := make(chan int, 1000)
	c, a := pair(t, link.Options{LogRate: 1 << 20, OnLog: onLogLength(got)}, linktest.Options{})
	line := string(make([]byte, 60_000))
	for range 4 {
		a.Log("info", line)
	}
	for range 4 {
		<-got
	}
	for range 4 { // 240 KB at 1 MiB/s: an honest agent waits for credit
		credit := a.LogCredit(60_100)
		a.Log("info", line)
		<-got
		if credit < 60_100 {
			t.Fatalf("credit %d", credit)
		}
	}
	if c.Err() != nil {
		t.Error(c.Err())
	}
}

// FuzzConn lets a hostile agent say anything while a value and a response are under way: whatever it is, both calls end, both
// settle once, and nothing is left.
func FuzzConn(f *testing.F) {
	for _, g := range golden[goldenFrame](f, "frames.json") {
		if g.From == "agent" {
			f.Add(onStream(renumber(unhex(f, g.Hex)), 2))
		}
	}
	for _, g := range golden[goldenBreach](f, "breaches.json") {
		if b := unhex(f, g.Hex); len(b) < 1<<12 {
			f.Add(onStream(b, 2))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		host, agent := socketPair(t)
		c, err := link.NewConn(host, link.Options{Container: "c"})
		if err != nil {
			t.Fatal(err)
		}
		c.Bind("acme", nil)
		var settled atomic.Int64
		done := make(chan error, 2)
		do := func(sink *recorder) {
			r := request("1")
			_, err := c.Do(context.Background(), r, sink, func() { settled.Add(1) })
			done <- err
		}
		go do(&recorder{})
		buf := make([]byte, 4096)
		agent.Read(buf) // LOAD and the first INVOKE
		go do(&recorder{})
		agent.Read(buf)
		agent.Write(b)
		agent.Close()
		<-done
		<-done
		c.Close()
		if settled.Load() != 2 || c.Running() != 0 {
			t.Fatalf("settled %d, running %d", settled.Load(), c.Running())
		}
	})
}

// renumber puts a golden frame on stream 1, where it has one.
func renumber(wire []byte) []byte {
	if wire[6]|wire[7]|wire[8]|wire[9] != 0 {
		copy(wire[6:10], []byte{0, 0, 0, 1})
	}
	return wire
}

func socketPair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// A caller that goes away with a full window behind it: the agent gets the credit to finish what it has begun to send.
func TestCreditAfterTheCallerHasGone(t *testing.T) {
	c, _ := pair(t, link.Options{}, linktest.Options{Deaf: true, Handler: func(_ context.Context, k *linktest.Call) ([]byte, error) {
		k.Head(200)
		for range 64 {
			if err := k.Data(make([]byte, link.MaxBody)); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}})
	r := request("1")
	r.Via = call.ViaHTTP
	sink := &recorder{fail: errors.New("gone"), gate: make(chan struct{}), inside: make(chan struct{})}
	settled := make(chan struct{})
	go func() {
		<-sink.inside
		time.Sleep(50 * time.Millisecond) // the agent runs out of credit, if it is ever to
		close(sink.gate)
	}()
	_, err := c.Do(context.Background(), r, sink, func() { close(settled) })
	wantKind(t, err, errs.Cancelled, errs.StartedMaybe)
	select {
	case <-settled:
	case <-time.After(30 * time.Second):
		t.Fatal("never settled")
	}
}
