package remote

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	pb "paddock/proto/paddock/v1"
)

// What is kept of streams that carry no call at the moment.
const (
	mostIdle = 32
	idleFor  = time.Minute
)

// stream is one stream to a controller. It carries one call after another as long as both sides want that: to make one costs more
// than a call on it. Its context is its own, since it outlives the call that it was made for.
type stream struct {
	pb.Node_InvokeClient
	ctx     context.Context
	cancel  context.CancelFunc
	sent    atomic.Bool // what was sent for the call was handed to the connection
	carried bool        // a call before
	since   time.Time   // when it became idle
}

func newStream() *stream {
	s := &stream{}
	s.ctx, s.cancel = context.WithCancel(context.WithValue(context.Background(), sentKey{}, &s.sent))
	return s
}

// open begins the stream, or another call on it.
func (s *stream) open(c pb.NodeClient) (err error) {
	s.sent.Store(false)
	if s.Node_InvokeClient != nil {
		return nil
	}
	s.Node_InvokeClient, err = c.Invoke(s.ctx)
	return err
}

// send says why it fails, where gRPC says only io.EOF.
func (s *stream) send(m *pb.NodeRequest) error {
	err := s.Send(m)
	if !errors.Is(err, io.EOF) {
		return err
	}
	if _, why := s.Recv(); why != nil {
		return why
	}
	return err
}

// idle are a Node's streams that carry no call at the moment, the one that did last at the end.
type idle struct {
	mu  sync.Mutex
	all []*stream
}

func (i *idle) take() *stream {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.all) == 0 {
		return nil
	}
	last := len(i.all) - 1
	s := i.all[last]
	i.all[last] = nil
	i.all = i.all[:last]
	return s
}

func (i *idle) put(s *stream) {
	s.carried, s.since = true, time.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.all) == mostIdle {
		s.cancel()
		return
	}
	i.all = append(i.all, s)
}

// endSince ends those that have carried nothing since then.
func (i *idle) endSince(then time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.all = slices.DeleteFunc(i.all, func(s *stream) bool {
		if s.since.After(then) {
			return false
		}
		s.cancel()
		return true
	})
}

// Tidy ends streams that are needed no more. It is called now and then.
func (n *Node) Tidy() { n.idle.endSince(time.Now().Add(-idleFor)) }

// DialOption lets a Node know what has been handed to the connection.
func DialOption() grpc.DialOption { return grpc.WithStatsHandler(watcher{}) }

// sentKey is where a stream's context has the mark that something was handed to the connection.
type sentKey struct{}

// watcher sets the mark.
type watcher struct{}

// TagRPC implements stats.Handler.
func (watcher) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (watcher) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutPayload); ok {
		if sent, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
			sent.Store(true)
		}
	}
}

// TagConn implements stats.Handler.
func (watcher) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (watcher) HandleConn(context.Context, stats.ConnStats) {}
