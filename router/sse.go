package router

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"net/url"

	"paddock/internal/errs"
	"paddock/internal/identity"
	pb "paddock/proto/paddock/v1"
)

// serveLogs is GET /v1/logs: Logs.Tail as server-sent events, one "data: {LogLine}" each; follow is on unless said
// otherwise.
func serveLogs(x *exchange) error {
	req, err := tailRequest(x.r.URL.RawQuery)
	if err != nil {
		return err
	}
	return serveEvents(x, req, func(s grpc.ServerStreamingServer[pb.LogLine]) error { return x.router.kept.Tail(req, s) })
}

// serveEvents answers with what a streaming method sends, one "data: {message}" each.
func serveEvents[M any](x *exchange, req proto.Message, serve func(grpc.ServerStreamingServer[M]) error) error {
	lasting, stop := x.router.lasting(identity.With(x.r.Context(), x.who), x.rule, httpCredential(x.r))
	defer stop()
	rec, err := x.router.auditBegin(lasting, x.rule, &x.who, x.r.RemoteAddr, x.id, req)
	if err != nil {
		return err
	}
	rec.opened()
	ctx, cancel := context.WithCancel(lasting)
	defer cancel()
	s := &eventStream[M]{x: x, ctx: ctx, cancel: cancel, control: http.NewResponseController(x.w)}
	quiet := sync.OnceFunc(s.keepAlive())
	defer quiet()
	err = serve(s)
	quiet()
	err = rec.end(ctx, nil, whyEnded(lasting, fromService(err)))
	if err != nil && (ctx.Err() == nil || whyEnded(lasting, nil) != nil) {
		x.cut = s.begun
		return err
	}
	s.begin()
	return nil
}

func tailRequest(rawQuery string) (*pb.TailRequest, error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, errs.New(errs.Invalid, "the query string cannot be read: escape its values")
	}
	req := &pb.TailRequest{Follow: true}
	for name, values := range query {
		switch value := values[0]; name {
		case "follow":
			if req.Follow, err = parseFlag(name, value); err != nil {
				return nil, err
			}
		case "lines":
			n, err := strconv.ParseInt(value, 10, 32)
			if err != nil || n < 0 {
				return nil, errs.New(errs.Invalid, "lines %.40q: use a number from 0", value)
			}
			req.Lines = int32(n)
		case "function":
			req.Function = value
		case "callId", "call_id":
			req.CallId = value
		case "level":
			req.Level = value
		default:
			return nil, errs.New(errs.Invalid, "there is no query parameter %.40q: use follow, lines, function, callId or level",
				name)
		}
	}
	return req, nil
}

// Times of an event stream.
const (
	eventKeepAlive = 15 * time.Second // a comment, so that proxies and dead callers are noticed
	eventWrite     = 30 * time.Second
)

// eventStream is a method's stream of messages, written as server-sent events.
type eventStream[M any] struct {
	x       *exchange
	ctx     context.Context
	cancel  context.CancelFunc
	control *http.ResponseController

	mu    sync.Mutex
	begun bool
}

var eventContentType = []string{"text/event-stream"}

// begin writes the head, once.
func (s *eventStream[M]) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beginLocked()
}

func (s *eventStream[M]) beginLocked() {
	if s.begun {
		return
	}
	s.begun = true
	h := s.x.w.Header()
	h["Content-Type"] = eventContentType
	h["Cache-Control"] = noStore
	s.x.w.WriteHeader(http.StatusOK)
}

func (s *eventStream[M]) write(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.control.SetWriteDeadline(time.Now().Add(eventWrite))
	s.beginLocked()
	if _, err := s.x.w.Write(p); err != nil {
		s.cancel()
		return err
	}
	return s.control.Flush()
}

// keepAlive writes comments into the silence until the returned function is called.
func (s *eventStream[M]) keepAlive() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(eventKeepAlive)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = s.write([]byte(": \n\n"))
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

// Send implements grpc.ServerStreamingServer.
func (s *eventStream[M]) Send(m *M) error {
	text, err := protojson.Marshal(any(m).(proto.Message))
	if err != nil {
		return err
	}
	event := make([]byte, 0, len(text)+8)
	event = append(event, "data: "...)
	event = append(event, text...)
	return s.write(append(event, "\n\n"...))
}

// Context implements grpc.ServerStream.
func (s *eventStream[M]) Context() context.Context { return s.ctx }

// SetHeader implements grpc.ServerStream; there is nothing to say.
func (s *eventStream[M]) SetHeader(metadata.MD) error { return nil }

// SendHeader implements grpc.ServerStream: the caller learns that it is being listened to.
func (s *eventStream[M]) SendHeader(metadata.MD) error { return s.write(nil) }

// SetTrailer implements grpc.ServerStream; there is nothing to say.
func (s *eventStream[M]) SetTrailer(metadata.MD) {}

// SendMsg implements grpc.ServerStream.
func (s *eventStream[M]) SendMsg(m any) error { return s.Send(m.(*M)) }

// RecvMsg implements grpc.ServerStream; the request was handed over with the call.
func (s *eventStream[M]) RecvMsg(any) error { return context.Canceled }
