package client

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

// repeat makes a call as often as the policy allows. try says what came of one attempt.
func (c *Client) repeat(ctx context.Context, try func(context.Context) *Error) error {
	backoff := c.opts.Retry.MinBackoff
	for attempt := 1; ; attempt++ {
		e := try(ctx)
		if e == nil {
			c.budget.succeeded()
			return nil
		}
		if !e.repeatable() || !c.budget.failed() || attempt >= c.opts.Retry.Attempts {
			return e
		}
		wait := e.RetryAfter
		if wait <= 0 {
			wait = backoff/2 + rand.N(backoff/2+1)
			backoff = min(2*backoff, c.opts.Retry.MaxBackoff)
		}
		if wait > c.opts.Retry.MaxWait || !sleep(ctx, wait) {
			return e
		}
	}
}

// sleep waits, and says whether there was time for that and is for more.
func sleep(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// budget lets calls be repeated while most of them succeed, as gRPC's retry throttling does. Safe for concurrent use.
type budget struct {
	mu     sync.Mutex
	tokens float64
}

// A failure takes a token, a success gives a tenth of one back; with half of them gone nothing is repeated.
const (
	budgetTokens  = 20
	budgetReturns = 0.1
)

func newBudget() budget { return budget{tokens: budgetTokens} }

func (b *budget) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = min(b.tokens+budgetReturns, budgetTokens)
}

// failed notes a failure that could be repeated, and says whether it may be.
func (b *budget) failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens = max(b.tokens-1, 0)
	return b.tokens > budgetTokens/2
}

// departure tells whether anything of a request has left for the service. What has not can be repeated whoever it is.
type departure struct{ left atomic.Bool }

type departureKey struct{}

func withDeparture(ctx context.Context) (context.Context, *departure) {
	d := &departure{}
	return context.WithValue(ctx, departureKey{}, d), d
}

// departures notes requests that leave: gRPC tells its stats handlers when a request's head goes to the connection.
type departures struct{}

func (departures) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (departures) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, head := s.(*stats.OutHeader); !head {
		return
	}
	if d, ok := ctx.Value(departureKey{}).(*departure); ok {
		d.left.Store(true)
	}
}

func (departures) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (departures) HandleConn(context.Context, stats.ConnStats)                       {}

// management makes one management call, again as long as it may be.
func management[Req, Res any](
	ctx context.Context, c *Client, method func(context.Context, Req, ...grpc.CallOption) (Res, error), req Req,
) (res Res, err error) {
	err = c.repeat(ctx, func(ctx context.Context) *Error {
		ctx, gone := withDeparture(ctx)
		var err error
		if res, err = method(ctx, req); err != nil {
			return errorOfStatus(err, gone.left.Load())
		}
		return nil
	})
	return res, err
}
