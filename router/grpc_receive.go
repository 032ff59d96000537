package router

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"paddock/internal/errs"
	"paddock/internal/metrics"
)

// grpcMessageTime is how long the one message of a unary method may take to come, whatever deadline the caller set or not.
const grpcMessageTime = time.Minute

// earlyServer registers unary methods as streams of one message each way: alike on the wire, but the choke point stands
// before the message is read. gRPC's own unary methods read up to the message limit for callers that nobody knows yet.
type earlyServer struct {
	*grpc.Server
	unary map[string]bool // what it registered, by full method
}

// RegisterService implements grpc.ServiceRegistrar.
func (s earlyServer) RegisterService(desc *grpc.ServiceDesc, impl any) {
	early := *desc
	early.Methods, early.Streams = nil, append([]grpc.StreamDesc(nil), desc.Streams...)
	for _, m := range desc.Methods {
		s.unary["/"+desc.ServiceName+"/"+m.MethodName] = true
		early.Streams = append(early.Streams, grpc.StreamDesc{
			StreamName: m.MethodName, Handler: receiveAndServe(m.Handler), ServerStreams: true, // or the interceptor is passed by
		})
	}
	s.Server.RegisterService(&early, impl)
}

// receiveAndServe is a unary method that is served as a stream, behind the choke point.
func receiveAndServe(method grpc.MethodHandler) grpc.StreamHandler {
	return func(impl any, ss grpc.ServerStream) error {
		ctx := ss.Context()
		q := requestFrom(ctx)
		if err := q.takeSlot(); err != nil {
			return err
		}
		received := error(errNotReceived)
		defer func() { q.giveSlotBack(received) }()
		decode := func(message any) error {
			received = ss.RecvMsg(message)
			stopAwaiting(ctx)
			return received
		}
		res, err := method(impl, ctx, decode, q.own)
		if err != nil {
			return err
		}
		return ss.SendMsg(res)
	}
}

var errNotReceived = errs.New(errs.Cancelled, "the message was not read")

// own is the part of the choke point that needs the message.
func (q *request) own(ctx context.Context, message any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := q.begin(message); err != nil {
		return nil, err
	}
	res, err := next(ctx, message)
	return res, q.record.end(q.ctx, res, err)
}

// takeSlot admits a call before its message is read.
func (q *request) takeSlot() (err error) {
	if q.rule.call {
		q.slot, err = q.router.admit(q.ctx, q.id, q.who, metrics.GRPC, q.began)
	}
	return err
}

// giveSlotBack ends a call whose message did not come; one that came was ended by its handler.
func (q *request) giveSlotBack(received error) {
	if q.slot == nil {
		return
	}
	e := &errs.Error{Kind: errs.Cancelled, Started: errs.StartedNo, Message: "the message did not come whole", Op: "receive", Err: received}
	switch status.Code(received) {
	case codes.DeadlineExceeded:
		e.Kind = errs.Timeout
	case codes.ResourceExhausted, codes.Internal:
		e.Kind = errs.Invalid
	}
	q.slot.finish(q.ctx, nil, e)
}

// receipt is the context of a unary request on the gRPC listener, which ends if the message does not come in time.
type receipt struct {
	context.Context
	late  atomic.Bool
	timer *time.Timer
}

// Err implements context.Context: a message that is late is the caller's deadline, not the caller's going.
func (c *receipt) Err() error {
	if err := c.Context.Err(); err == nil || !c.late.Load() {
		return err
	}
	return context.DeadlineExceeded
}

// Value implements context.Context.
func (c *receipt) Value(key any) any {
	if key == (liftKey{}) {
		return func() { c.timer.Stop() }
	}
	return c.Context.Value(key)
}

// awaitMessage returns a context that ends when the message has not come within limit.
func awaitMessage(ctx context.Context, limit time.Duration) context.Context {
	c := &receipt{}
	var cancel context.CancelFunc
	c.Context, cancel = context.WithCancel(ctx)
	c.timer = time.AfterFunc(limit, func() {
		c.late.Store(true)
		cancel()
	})
	return c
}

// awaitMessageHTTP does the same where gRPC came to the HTTP listener: there the body's reader is told. over must be called
// before w is gone; gRPC's goroutine may go on a little longer.
func awaitMessageHTTP(w http.ResponseWriter, r *http.Request, limit time.Duration) (_ *http.Request, over func()) {
	var mu sync.Mutex
	gone := false
	set := func(t time.Time, last bool) {
		mu.Lock()
		defer mu.Unlock()
		if !gone {
			setReadDeadline(w, t)
		}
		gone = gone || last
	}
	set(time.Now().Add(limit), false)
	lift := func() { set(time.Time{}, false) }
	return r.WithContext(context.WithValue(r.Context(), liftKey{}, lift)), func() { set(time.Time{}, true) }
}

// liftKey is that of a function in a request's context that lifts the limit.
type liftKey struct{}

func stopAwaiting(ctx context.Context) {
	if lift, ok := ctx.Value(liftKey{}).(func()); ok {
		lift()
	}
}

// tap sees requests of the gRPC listener before they are streams.
func (r *Router) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if !r.unaryRPC[info.FullMethodName] || ctx.Err() != nil { // one that is over never becomes a stream: nobody would stop the timer
		return ctx, nil
	}
	return awaitMessage(ctx, r.messageTime), nil
}

// admitPublic takes a place among the requests that need no credential.
func (r *Router) admitPublic(ctx context.Context) (leave func(), err error) {
	from := ""
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	leave, why := r.public.enter(from)
	if why == "" {
		return leave, nil
	}
	r.metrics.Refused("public")
	e := errs.New(errs.Limited, "%s", r.public.complaint(why, "requests without a credential"))
	e.Cause, e.RetryAfter = "concurrency", time.Second
	return nil, e
}
