package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// What comes within the pace comes at once; then it waits for its turn; then longer than anybody has patience for, and not all
// until the same moment.
func TestTurnstile(t *testing.T) {
	p := pace{perSecond: 10, burst: 5, patience: 2 * time.Second}
	ts, err := newTurnstile[string](p)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for i := range 5 {
		if wait, ok := ts.turn("a", 1, now); wait != 0 || !ok {
			t.Fatalf("%d: %v %v", i, wait, ok)
		}
	}
	for i := range 20 {
		if wait, ok := ts.turn("a", 1, now); !ok || wait.Round(time.Millisecond) != time.Duration(i+1)*100*time.Millisecond {
			t.Fatalf("%d beyond: %v %v", i, wait, ok)
		}
	}
	seen := map[time.Duration]bool{}
	for range 20 {
		wait, ok := ts.turn("a", 1, now)
		if seen[wait] = true; ok || wait < p.patience/2 || wait > p.patience {
			t.Fatalf("past all patience: %v %v", wait, ok)
		}
	}
	if len(seen) < 2 {
		t.Error("all come back at once")
	}
	if wait, ok := ts.turn("b", 1, now); wait != 0 || !ok {
		t.Errorf("another one: %v %v", wait, ok)
	}
	if wait, ok := ts.turn("a", 1, now.Add(time.Minute)); wait != 0 || !ok {
		t.Errorf("later: %v %v", wait, ok)
	}
}

// A pause ends with the caller and with the router.
func TestPausesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Router{}
		r.lifetime, r.endLife = context.WithCancel(context.Background())
		began := time.Now()
		if r.pause(t.Context(), time.Second); time.Since(began) != time.Second {
			t.Errorf("it took %v", time.Since(began))
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		began = time.Now()
		r.pause(gone, time.Hour)
		r.endLife()
		if r.pause(t.Context(), time.Hour); time.Since(began) != 0 {
			t.Errorf("it took %v", time.Since(began))
		}
	})
}

// slow makes every pace of a rig's so narrow that few requests show what many would.
func (g *rig) slow(p pace) {
	g.t.Helper()
	var err [3]error
	g.router.turnstiles.refusals, err[0] = newTurnstile[tenant.ID](p)
	g.router.turnstiles.management, err[1] = newTurnstile[tenant.ID](p)
	g.router.turnstiles.strangers, err[2] = newTurnstile[netip.Prefix](p)
	if err := errors.Join(err[:]...); err != nil {
		g.t.Fatal(err)
	}
}

// Whoever is refused, or asks for what is no call, too often waits for it, over either protocol; calls, operators and other
// tenants do not.
func TestFloodsAreSlowedDown(t *testing.T) {
	const patience = 200 * time.Millisecond
	narrow := pace{perSecond: 0.001, burst: 2, patience: patience}
	for name, c := range map[string]struct {
		ask   func(g *rig) int // a status
		node  func(context.Context, *call.Request, call.Sink) (*call.Result, error)
		slow  bool
		after int // status when the pace is exceeded
	}{
		"list": {func(g *rig) int {
			return g.do("GET", "/v1/functions", "", "Authorization: "+bearerOf("acme-invoke")).status
		}, nil, true, 429},
		"denied": {func(g *rig) int {
			return g.do("GET", "/v1/tenants", "", "Authorization: "+bearerOf("acme-invoke")).status
		}, nil, true, 403},
		"no key":        {func(g *rig) int { return g.do("GET", "/v1/functions", "", "Authorization: x").status }, nil, true, 401},
		"health":        {func(g *rig) int { return g.do("GET", "/healthz", "").status }, nil, true, 429},
		"nothing there": {func(g *rig) int { return g.do("GET", "/x", "").status }, nil, true, 404},
		"operator":      {func(g *rig) int { return g.do("GET", "/v1/pool", "", "Authorization: "+bearerOf("op")).status }, nil, false, 200},
		"call":          {func(g *rig) int { return g.do("POST", "/v1/functions/echo/invoke", "1").status }, nil, false, 200},
		"no sandbox for it": {func(g *rig) int { return g.do("POST", "/v1/functions/echo/invoke", "1").status },
			func(context.Context, *call.Request, call.Sink) (*call.Result, error) {
				return nil, errs.New(errs.Limited, "too many new sandboxes")
			}, true, 429},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, nil)
			g.slow(narrow)
			if c.node != nil {
				g.node.do = c.node
			}
			first := c.ask(g)
			c.ask(g)
			began := time.Now()
			last := c.ask(g)
			took := time.Since(began)
			if last != c.after || (took >= patience/2) != c.slow && (c.slow || took > 5*patience) {
				t.Errorf("first %d, then %d after %v", first, last, took)
			}
		})
	}
}

// A stream whose answers nobody reads is not heard for ever: what it has sent takes no more room than its calls may.
func TestStreamThatIsNotRead(t *testing.T) {
	g := newRig(t, nil)
	g.cat.addTenant("acme", func(p *tenant.Policy) { p.Concurrency = 10 })
	hold := make(chan struct{})
	g.node.do = func(ctx context.Context, req *call.Request, _ call.Sink) (*call.Result, error) {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return okResult(req.Body), nil
	}
	ctx, cancel := context.WithCancel(ctxAs(t.Context(), "acme-invoke"))
	defer cancel()
	st, err := pb.NewSandboxClient(g.conn).InvokeStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	var sent atomic.Int64
	var sender sync.WaitGroup
	sender.Go(func() {
		filler := strings.Repeat(" ", 2000)
		for tag := uint64(1); ctx.Err() == nil; tag++ {
			m := &pb.InvokeStreamRequest{Tag: tag, Body: &pb.InvokeStreamRequest_Call{Call: echoRequest(filler + "1")}}
			if st.Send(m) != nil {
				return
			}
			sent.Add(1)
		}
	})
	last, still := int64(-1), 0
	eventually(t, func() bool { // it stands still: the server takes no more
		if n := sent.Load(); n != last {
			last, still = n, 0
		} else {
			still++
		}
		if n := runtime.NumGoroutine() - before; n > 2*maxStreamServed {
			t.Fatalf("%d goroutines for one stream", n)
		}
		return still > 20 && last > maxStreamCalls
	})
	cancel()
	sender.Wait()
	close(hold)
	eventually(t, func() bool { return g.router.InFlight() == 0 })
	g.idle()
}

// Refused calls of a stream come back as slowly as the pace says, and the stream does not end of it.
func TestRefusalsOnAStreamAreSlowedDown(t *testing.T) {
	g := newRig(t, nil)
	g.cat.addTenant("acme", func(p *tenant.Policy) { p.Concurrency = 1; p.RatePerSecond, p.RateBurst = 0.001, 1 })
	const patience = 1500 * time.Millisecond
	g.slow(pace{perSecond: 0.001, burst: 3, patience: patience})
	st, err := pb.NewSandboxClient(g.conn).InvokeStream(ctxAs(t.Context(), "acme-invoke"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	kinds := map[string]int{}
	var slow int
	for tag := range uint64(8) {
		if err := st.Send(&pb.InvokeStreamRequest{Tag: tag, Body: &pb.InvokeStreamRequest_Call{Call: echoRequest("1")}}); err != nil {
			t.Fatal(err)
		}
	}
	for range 8 {
		m, err := st.Recv()
		if err != nil {
			t.Fatal(err)
		}
		kinds[m.GetResult().GetError().GetKind()]++
		if time.Since(began) >= patience/2 {
			slow++
		}
	}
	if fmt.Sprint(kinds) != "map[:1 limited:7]" || slow != 4 {
		t.Errorf("%v, %d of them slow", kinds, slow)
	}
	if err := st.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Recv(); status.Code(err) != codes.Unknown && err.Error() != "EOF" {
		t.Error(err)
	}
	g.idle()
}
