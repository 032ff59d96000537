// Package remote reaches controllers on other machines: a router.Node over paddock.v1.Node. It places nothing and watches
// nobody: which controller is asked is package fleet's business.
package remote

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/nodewire"
	pb "paddock/proto/paddock/v1"
)

// answerGrace is how much longer than a call's deadline its controller's own answer is waited for: it knows better what
// became of the call.
const answerGrace = 250 * time.Millisecond

// Node is one controller over a connection. Safe for concurrent use; the connection is its maker's to close.
type Node struct {
	id     string
	conn   grpc.ClientConnInterface
	client pb.NodeClient
	// TenantRevision, if set, says how new a tenant's record is here, so that the controller does not judge by an older one.
	TenantRevision func(req *call.Request) int64
}

// New returns the controller id over conn, which must have been made with DialOption.
func New(id string, conn grpc.ClientConnInterface) *Node {
	return &Node{id: id, conn: conn, client: pb.NewNodeClient(conn)}
}

// DialOption lets a Node know what has been handed to the connection.
func DialOption() grpc.DialOption { return grpc.WithStatsHandler(watcher{}) }

// ID names the controller.
func (n *Node) ID() string { return n.id }

// Conn is the connection, for the controller's other services.
func (n *Node) Conn() grpc.ClientConnInterface { return n.conn }

// Client is the controller's whole service.
func (n *Node) Client() pb.NodeClient { return n.client }

// Invoke implements router.Node. most bounds the containers that the tenant may have there; see InvokeAtMost.
func (n *Node) Invoke(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
	return n.InvokeAtMost(ctx, req, sink, 0)
}

// InvokeAtMost is Invoke for a tenant that may have no more than most containers at this controller; 0 is its policy's number.
func (n *Node) InvokeAtMost(ctx context.Context, req *call.Request, sink call.Sink, most int) (*call.Result, error) {
	x := &exchange{node: n, req: req, sink: sink}
	ctx, cancel := context.WithDeadline(context.WithValue(ctx, sentKey{}, &x.sent), req.Deadline.Add(answerGrace))
	defer cancel() // ends the stream, and with it whoever still sends on it
	stream, err := n.client.Invoke(ctx)
	if err != nil {
		return nil, x.broken(ctx, err)
	}
	x.stream = stream
	if err := stream.Send(&pb.NodeRequest{Part: &pb.NodeRequest_Call{Call: x.head(n, most)}}); err != nil {
		return nil, x.broken(ctx, recvError(stream, err))
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil, x.broken(ctx, err)
		}
		res, done, err := x.take(ctx, m)
		if done || err != nil {
			return res, err
		}
	}
}

// recvError is why a stream cannot be sent on: Send says only io.EOF.
func recvError(stream pb.Node_InvokeClient, err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	if _, why := stream.Recv(); why != nil {
		return why
	}
	return err
}

// exchange is one call on its stream.
type exchange struct {
	node   *Node
	req    *call.Request
	sink   call.Sink
	stream pb.Node_InvokeClient
	sent   atomic.Bool // the head was handed to the connection
	coding bool        // code was asked for and is not there yet: nothing has started
	value  []byte      // of a long answer
	headed bool
	rest   []byte // of the body, behind what went with the head
}

func (x *exchange) head(n *Node, most int) *pb.NodeCall {
	h := nodewire.Call(x.req, time.Now())
	h.MaxContainers = int32(most)
	if n.TenantRevision != nil {
		h.TenantRevision = n.TenantRevision(x.req)
	}
	if w, ok := x.sink.(interface{ WantsLogs() bool }); ok {
		h.WithLogs = w.WantsLogs()
	}
	if x.req.Stream != nil {
		h.Streamed, h.Body = true, &pb.BodyPart{}
		return h
	}
	first := x.req.Body[:min(len(x.req.Body), nodewire.PartBytes)]
	x.rest = x.req.Body[len(first):]
	h.Body = &pb.BodyPart{Data: first, Last: len(x.rest) == 0}
	return h
}

// take acts on one message. done says that the answer is complete.
func (x *exchange) take(ctx context.Context, m *pb.NodeResponse) (res *call.Result, done bool, err error) {
	switch part := m.GetPart().(type) {
	case *pb.NodeResponse_Need:
		x.coding = true
		if err := x.sendCode(part.Need.GetHashes()); err != nil {
			return nil, false, x.broken(ctx, recvError(x.stream, err))
		}
		x.coding = false
	case *pb.NodeResponse_Accepted:
		go x.sendBody()
	case *pb.NodeResponse_Head:
		x.headed = true
		if err := x.sink.Head(int(part.Head.GetStatus()), nodewire.HeadersOf(part.Head.GetHeaders())); err != nil {
			return nil, false, x.sinkFailed(err)
		}
	case *pb.NodeResponse_Data:
		if !x.headed {
			x.value = append(x.value, part.Data...)
			break
		}
		if err := x.sink.Data(part.Data); err != nil {
			return nil, false, x.sinkFailed(err)
		}
	case *pb.NodeResponse_Log:
		x.sink.Log(nodewire.LogLineOf(part.Log, x.req.Tenant))
	case *pb.NodeResponse_Result:
		res, e := nodewire.ResultOf(part.Result)
		if e != nil {
			return res, true, e
		}
		if x.value != nil {
			res.Value = append(x.value, res.Value...)
		}
		return res, true, nil
	}
	return nil, false, nil
}

// sinkFailed is what a call ends with whose caller takes nothing any more.
func (x *exchange) sinkFailed(err error) error {
	var e *errs.Error
	if errors.As(err, &e) {
		return e
	}
	return errs.Wrap(errs.Cancelled, "answer", err, "the caller went away")
}

// sendCode sends sources that the controller lacks.
func (x *exchange) sendCode(hashes []string) error {
	sources := map[string][]byte{}
	nodewire.Codes(x.req, func(c *call.Code) { sources[c.Hash] = c.Source })
	for _, hash := range hashes {
		source := sources[hash]
		for {
			n := min(len(source), nodewire.PartBytes)
			part := &pb.CodePart{Hash: hash, Data: source[:n], Last: n == len(source)}
			if err := x.stream.Send(&pb.NodeRequest{Part: &pb.NodeRequest_Code{Code: part}}); err != nil {
				return err
			}
			if source = source[n:]; part.Last {
				break
			}
		}
	}
	return nil
}

// sendBody sends what did not go with the head. It ends with the body, or with the stream; a body that breaks off breaks the
// stream off as well, since an end would look like the whole.
func (x *exchange) sendBody() {
	if x.req.Stream == nil {
		for {
			n := min(len(x.rest), nodewire.PartBytes)
			if !x.sendPart(x.rest[:n], n == len(x.rest)) || n == len(x.rest) {
				return
			}
			x.rest = x.rest[n:]
		}
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := x.req.Stream.Read(buf)
		switch {
		case err == io.EOF:
			x.sendPart(buf[:n], true)
			return
		case err != nil:
			_ = x.stream.CloseSend()
			return
		}
		if !x.sendPart(buf[:n], false) {
			return
		}
	}
}

func (x *exchange) sendPart(p []byte, last bool) bool {
	return x.stream.Send(&pb.NodeRequest{Part: &pb.NodeRequest_Body{Body: &pb.BodyPart{Data: p, Last: last}}}) == nil
}

// broken is the outcome of a call whose stream ended without a result.
func (x *exchange) broken(ctx context.Context, err error) error {
	started := errs.StartedMaybe
	if !x.sent.Load() || x.coding {
		started = errs.StartedNo
	}
	switch code := status.Code(err); {
	case code == codes.DeadlineExceeded || errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &errs.Error{Kind: errs.Timeout, Started: started, Op: "controller " + x.node.id, Err: err, Message: "the call did not end within its time"}
	case ctx.Err() != nil:
		return &errs.Error{Kind: errs.Cancelled, Started: started, Op: "controller " + x.node.id, Err: err, Message: "the caller went away"}
	case code == codes.Unimplemented, code == codes.Unauthenticated, code == codes.PermissionDenied, code == codes.InvalidArgument:
		return &errs.Error{Kind: errs.Internal, Started: errs.StartedNo, Op: "controller " + x.node.id, Err: err,
			Message: "the machine that was to run the call refused to; the operator's log has the details"}
	}
	e := &errs.Error{Kind: errs.SandboxLost, Cause: "controller", Started: started, Fault: errs.FaultPlatform, Op: "controller " + x.node.id, Err: err,
		Message: "the machine that ran the call was lost"}
	if started == errs.StartedNo {
		e.Message = "the machine that was to run the call could not be reached"
	}
	return e
}

// sentKey is where a call's context has the mark that its head was handed to the connection.
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
