// Package remote reaches controllers on other machines: a router.Node over paddock.v1.Node. It places nothing and watches
// nobody: which controller is asked is package fleet's business.
package remote

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
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
	idle   idle
	// TenantRevision, if set, says how new a tenant's record is here, so that the controller does not judge by an older one.
	TenantRevision func(req *call.Request) int64
}

// New returns the controller id over conn, which must have been made with DialOption.
func New(id string, conn grpc.ClientConnInterface) *Node {
	return &Node{id: id, conn: conn, client: pb.NewNodeClient(conn)}
}

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
	ctx, cancel := context.WithDeadline(ctx, req.Deadline.Add(answerGrace))
	defer cancel()
	if s := n.idle.take(); s != nil {
		x := &exchange{node: n, req: req, sink: sink, stream: s}
		if res, err := x.run(ctx, most); !x.stale {
			return res, err
		}
	}
	x := &exchange{node: n, req: req, sink: sink, stream: newStream()}
	return x.run(ctx, most)
}

// run makes the call on the exchange's stream, and keeps that if it can carry another one. Otherwise it ends it, and with it whoever
// still sends on it.
func (x *exchange) run(ctx context.Context, most int) (*call.Result, error) {
	s := x.stream
	stop := context.AfterFunc(ctx, s.cancel)
	defer func() {
		if stop() && x.again {
			x.node.idle.put(s)
			return
		}
		s.cancel()
	}()
	if err := s.open(x.node.client); err != nil {
		return nil, x.broken(ctx, err)
	}
	if err := s.send(&pb.NodeRequest{Part: &pb.NodeRequest_Call{Call: x.head(x.node, most)}}); err != nil {
		x.stale = s.carried && !s.sent.Load()
		return nil, x.broken(ctx, err)
	}
	for first := true; ; first = false {
		m, err := s.Recv()
		if err != nil {
			x.stale = s.carried && first && status.Code(err) == nodewire.NothingTaken
			return nil, x.broken(ctx, err)
		}
		res, done, err := x.take(ctx, m)
		if done || err != nil {
			return res, err
		}
	}
}

// exchange is one call on its stream.
type exchange struct {
	node   *Node
	req    *call.Request
	sink   call.Sink
	stream *stream
	stale  bool   // the stream had ended before the call came, which can go on another one
	again  bool   // the stream can carry another call
	coding bool   // code was asked for and is not there yet: nothing has started
	value  []byte // of a long answer
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
	h.Again = h.Body.Last
	return h
}

// take acts on one message. done says that the answer is complete.
func (x *exchange) take(ctx context.Context, m *pb.NodeResponse) (res *call.Result, done bool, err error) {
	switch part := m.GetPart().(type) {
	case *pb.NodeResponse_Need:
		x.coding = true
		if err := x.sendCode(part.Need.GetHashes()); err != nil {
			return nil, false, x.broken(ctx, err)
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
		x.again = part.Result.GetAgain()
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
			if err := x.stream.send(&pb.NodeRequest{Part: &pb.NodeRequest_Code{Code: part}}); err != nil {
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
	if !x.stream.sent.Load() || x.coding || status.Code(err) == nodewire.NothingTaken {
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
