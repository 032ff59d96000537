package router

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/metrics"
	pb "paddock/proto/paddock/v1"
)

// maxStreamCalls bounds the calls in flight on one stream; tenants' own concurrency usually ends sooner.
const maxStreamCalls = 1024

// maxStreamServed bounds the messages of one stream that are received and not answered; past it nothing is received until an
// answer has gone. So a caller that reads no answers is no longer heard, and holds no more memory here. It leaves room beyond
// the calls in flight for cancels.
const maxStreamServed = maxStreamCalls + 64

// callStream is one InvokeStream: many calls, answered as they are ready.
//
// Workers take turns at receiving, and whoever received a call also runs it and sends its answer: no message changes
// hands between goroutines. A worker that has received sees to it that another one receives.
type callStream struct {
	router *Router
	q      *request
	ss     pb.Sandbox_InvokeStreamServer
	ctx    context.Context
	cancel context.CancelFunc

	finished chan struct{} // closed when nothing is left to answer
	recvMu   sync.Mutex    // held by the worker that receives
	sendMu   sync.Mutex    // held by the worker that sends; never taken under mu

	mu        sync.Mutex
	calls     map[uint64]context.CancelFunc // in flight, by tag
	receivers int                           // workers that receive or wait to
	serving   int                           // messages received and not answered
	over      bool                          // nothing more is received
	away      bool                          // goaway was sent
	err       error                         // why the stream ends, nil for a clean end
}

// InvokeStream implements paddock.v1.Sandbox. It returns once the caller has closed its side, or goaway was sent, and all
// calls in flight are answered.
func (s *sandboxServer) InvokeStream(ss pb.Sandbox_InvokeStreamServer) error {
	r := s.router
	cuttable, done := r.cuttable(ss.Context())
	defer done()
	ctx, cancel := context.WithCancel(cuttable)
	defer cancel()
	leave, err := r.admitStream(ctx, requestFrom(ctx).who.Tenant)
	if err != nil {
		return err
	}
	defer leave()
	cs := &callStream{router: r, q: requestFrom(ctx), ss: ss, ctx: ctx, cancel: cancel,
		finished: make(chan struct{}), calls: map[uint64]context.CancelFunc{}}
	if !r.drain.enter(cs) {
		return errDraining()
	}
	defer r.drain.leave(cs)
	r.metrics.StreamOpened()
	defer r.metrics.StreamClosed()
	cs.q.setTrailer(metadata.MD{mdCallID: {string(cs.q.id)}})
	cs.spawn()
	<-cs.finished
	return cs.failure()
}

// failure is why the stream ended, nil for a clean end.
func (cs *callStream) failure() error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.err
}

// spawn starts a worker, unless one receives already or nothing more is received. After goaway one may still wait for a
// message when the handler returns; the end of the stream wakes it.
func (cs *callStream) spawn() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.over || cs.receivers > 0 || cs.serving >= maxStreamServed {
		return // whoever is done first receives on
	}
	cs.receivers++
	go cs.work()
}

// work receives and serves until there is nothing more to receive or enough others do.
func (cs *callStream) work() {
	for {
		req, ok := cs.receive()
		if !ok {
			return
		}
		cs.serve(req)
		if !cs.served() {
			return
		}
	}
}

// served notes that a message is done with and says whether the worker goes on.
func (cs *callStream) served() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.serving--
	cs.finishLocked()
	if cs.over || cs.receivers >= maxIdleReceivers {
		return false
	}
	cs.receivers++
	return true
}

// finishLocked ends the stream if no message can come any more and none is being served.
func (cs *callStream) finishLocked() {
	if !cs.over && !cs.away || cs.serving > 0 {
		return
	}
	select {
	case <-cs.finished:
	default:
		close(cs.finished)
	}
}

// maxIdleReceivers is how many workers of a stream stay to wait for their turn; keeping a few saves starting them anew.
const maxIdleReceivers = 64

// receive takes the worker's turn at receiving.
func (cs *callStream) receive() (*pb.InvokeStreamRequest, bool) {
	cs.recvMu.Lock()
	defer cs.recvMu.Unlock()
	if cs.isOver() {
		return nil, false
	}
	req, err := cs.ss.Recv()
	cs.mu.Lock()
	cs.receivers--
	if err == nil {
		cs.serving++
	} else {
		cs.over = true
		if !errors.Is(err, io.EOF) {
			cs.err = err
		}
		cs.finishLocked()
	}
	cs.mu.Unlock()
	if err != nil && !errors.Is(err, io.EOF) {
		cs.cancel() // a broken stream cancels its calls: nobody would see their answers
	}
	return req, err == nil
}

func (cs *callStream) isOver() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.over
}

// serve handles one message; it returns when a call is answered.
func (cs *callStream) serve(req *pb.InvokeStreamRequest) {
	switch body := req.GetBody().(type) {
	case *pb.InvokeStreamRequest_Cancel:
		cs.mu.Lock()
		cancel := cs.calls[req.GetTag()]
		cs.mu.Unlock()
		if cancel != nil {
			cancel()
		}
	case *pb.InvokeStreamRequest_Call:
		cs.spawn()
		cs.call(req.GetTag(), body.Call)
	default:
		cs.refuse(req.GetTag(), newCallID(), errs.New(errs.Invalid, "the message has neither call nor cancel"))
	}
}

// call runs one call and sends its answer.
func (cs *callStream) call(tag uint64, req *pb.InvokeRequest) {
	began, id := time.Now(), newCallID()
	ctx, cancel := context.WithCancel(cs.ctx)
	defer cancel()
	if e := cs.register(tag, cancel); e != nil {
		if e.Kind == errs.Limited {
			_ = cs.router.refuse(ctx, cs.q.who.Tenant, e)
		}
		cs.refuse(tag, id, e)
		return
	}
	sink := &collector{wantLogs: req.GetWithLogs()}
	pump := startLogPump(cs, tag, sink)
	// A key that was revoked ends here too, not only at the stream's beginning.
	who, why, err := cs.router.auth.authorize(cs.q.rule, cs.q.cred)
	if why != "" {
		cs.router.auditDenied(cs.q.rule, &who, cs.q.source(), id, why, err)
	}
	if err != nil {
		_ = cs.router.turnAway(ctx, &who, cs.q.source(), err)
	}
	var res *call.Result
	if err == nil {
		c := grpcCall{router: cs.router, id: id, who: who, transport: metrics.GRPCStream, began: began}
		res, err = cs.guarded(ctx, &c, req, sink)
	}
	pump.stop()
	cs.mu.Lock()
	delete(cs.calls, tag)
	cs.mu.Unlock()
	out := invokeResponse(id, res, errs.From(err), sink)
	cs.send(&pb.InvokeStreamResponse{Tag: tag, Body: &pb.InvokeStreamResponse_Result{Result: out}})
}

// guarded runs the call and makes an answer of a panic: it must not take the other calls of the stream with it.
func (cs *callStream) guarded(ctx context.Context, c *grpcCall, req *pb.InvokeRequest, sink *collector) (res *call.Result,
	err error) {
	defer func() {
		if v := recover(); v != nil {
			res, err = nil, cs.q.panicked(v)
		}
	}()
	return c.run(ctx, req, sink)
}

// register notes a call in flight, or says why it is not taken.
func (cs *callStream) register(tag uint64, cancel context.CancelFunc) *errs.Error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch {
	case cs.away:
		return errDraining()
	case cs.calls[tag] != nil:
		return errs.New(errs.Invalid, "tag %d is that of a call in flight on this stream", tag)
	case len(cs.calls) >= maxStreamCalls:
		e := errs.New(errs.Limited, "this stream has %d calls in flight, as many as it takes", maxStreamCalls)
		e.Cause, e.RetryAfter = "concurrency", time.Second
		return e
	}
	cs.calls[tag] = cancel
	return nil
}

// refuse answers a message that became no call.
func (cs *callStream) refuse(tag uint64, id call.ID, e *errs.Error) {
	cs.send(&pb.InvokeStreamResponse{Tag: tag, Body: &pb.InvokeStreamResponse_Result{
		Result: &pb.InvokeResponse{CallId: string(id), Error: callError(e, id)},
	}})
}

// send sends one message. A failure ends the stream: its receiver sees it too.
func (cs *callStream) send(m *pb.InvokeStreamResponse) {
	cs.sendMu.Lock()
	err := cs.ss.Send(m)
	cs.sendMu.Unlock()
	if err != nil {
		cs.cancel()
	}
}

// goAway announces that no later call is served and ends the stream once those in flight are answered.
func (cs *callStream) goAway(reason string) {
	cs.mu.Lock()
	if cs.away || cs.over {
		cs.mu.Unlock()
		return
	}
	cs.away = true
	cs.serving++ // the stream must not end before the message has gone
	cs.mu.Unlock()
	cs.send(&pb.InvokeStreamResponse{Body: &pb.InvokeStreamResponse_Goaway{Goaway: &pb.GoAway{Reason: reason}}})
	cs.mu.Lock()
	cs.serving--
	cs.finishLocked()
	cs.mu.Unlock()
}

// logPump sends a call's log lines as they come. A nil one belongs to a call whose lines nobody wants.
type logPump struct {
	cs   *callStream
	tag  uint64
	sink *collector
	quit chan struct{}
	done chan struct{}
}

// startLogPump starts a pump for a call that wants its lines; stop must follow.
func startLogPump(cs *callStream, tag uint64, sink *collector) *logPump {
	if !sink.wantLogs {
		return nil
	}
	sink.came = make(chan struct{}, 1)
	p := &logPump{cs: cs, tag: tag, sink: sink, quit: make(chan struct{}), done: make(chan struct{})}
	go p.run()
	return p
}

func (p *logPump) run() {
	defer close(p.done)
	for {
		select {
		case <-p.sink.came:
			p.flush()
		case <-p.quit:
			p.flush()
			return
		}
	}
}

// flush sends what has come.
func (p *logPump) flush() {
	for _, l := range p.sink.takeLogs() {
		p.cs.send(&pb.InvokeStreamResponse{Tag: p.tag, Body: &pb.InvokeStreamResponse_Log{Log: logLine(&l)}})
	}
}

// stop returns when every line has been sent, so that the answer comes last.
func (p *logPump) stop() {
	if p == nil {
		return
	}
	close(p.quit)
	<-p.done
}
