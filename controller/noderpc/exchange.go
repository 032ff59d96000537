package noderpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/nodewire"
	pb "paddock/proto/paddock/v1"
)

// exchange is one call on its stream: the sink of what the code yields, and the reader of what comes after the head.
type exchange struct {
	server *Server
	stream grpc.BidiStreamingServer[pb.NodeRequest, pb.NodeResponse]
	head   *pb.NodeCall
	logs   bool
	more   bool // than the head has been asked for: what comes next may still be this call's

	mu    sync.Mutex // sending
	ended bool       // the answer is complete: what comes after it would be another call's
}

// run does the call. An error of a call that never came to the controller says that it has not started.
func (x *exchange) run() (*call.Result, error) {
	req, err := nodewire.Request(x.head, time.Now())
	if err != nil {
		return nil, notStarted(err)
	}
	if err := x.admit(req); err != nil {
		return nil, notStarted(err)
	}
	if err := x.fetchCode(req); err != nil {
		return nil, notStarted(err)
	}
	ctx, cancel := context.WithCancel(x.stream.Context())
	defer cancel()
	if err := x.attachBody(ctx, req); err != nil {
		return nil, notStarted(err)
	}
	return x.server.o.Controller.Invoke(ctx, req, x)
}

func notStarted(err error) error {
	e := *errs.From(err)
	e.Started = errs.StartedNo
	return &e
}

// admit finds the tenant's policy. A router may have heard of a tenant, or of a change, before this machine has.
func (x *exchange) admit(req *call.Request) error {
	ctx, cancel := context.WithTimeout(x.stream.Context(), min(tenantWait, time.Until(req.Deadline)))
	defer cancel()
	c := x.server.o.Catalogue
	t, ok := c.Tenant(req.Tenant)
	if want := x.head.GetTenantRevision(); want > c.Revision() && (!ok || t.Revision < want) {
		if err := c.WaitRevision(ctx, want); err != nil && !ok {
			e := errs.Wrap(errs.NoCapacity, "wait for tenant", err, "this machine has not heard of tenant %s yet: try again", req.Tenant)
			e.RetryAfter = time.Second
			return e
		}
		t, ok = c.Tenant(req.Tenant)
	}
	if !ok {
		return errs.New(errs.NotFound, "there is no tenant %s", req.Tenant)
	}
	req.Policy = t.Policy
	req.AtMost = int(x.head.GetMaxContainers())
	return nil
}

// fetchCode gives the request its sources: those that are kept here, and those that the router is asked for.
func (x *exchange) fetchCode(req *call.Request) error {
	missing := map[string]bool{}
	var asked []string
	nodewire.Codes(req, func(c *call.Code) {
		var ok bool
		if c.Source, ok = x.server.codes.Get(codeKey{req.Tenant, c.Hash}); !ok && !missing[c.Hash] {
			missing[c.Hash] = true
			asked = append(asked, c.Hash)
		}
	})
	if len(asked) == 0 {
		return nil
	}
	x.more = true
	if err := x.send(&pb.NodeResponse{Part: &pb.NodeResponse_Need{Need: &pb.NeedCode{Hashes: asked}}}); err != nil {
		return err
	}
	came := make(map[string][]byte, len(asked))
	for len(came) < len(asked) {
		hash, source, err := x.receiveCode(missing, req.Policy.SourceBytes)
		if err != nil {
			return err
		}
		came[hash] = source
		x.server.codes.Add(codeKey{req.Tenant, hash}, source, int64(len(source)))
	}
	nodewire.Codes(req, func(c *call.Code) {
		if c.Source == nil {
			c.Source = came[c.Hash]
		}
	})
	return nil
}

// receiveCode takes in one piece of code and holds it against its hash.
func (x *exchange) receiveCode(wanted map[string]bool, most int64) (hash string, source []byte, err error) {
	for {
		m, err := x.stream.Recv()
		if err != nil {
			return "", nil, err
		}
		part := m.GetCode()
		if part == nil || !wanted[part.GetHash()] || hash != "" && part.GetHash() != hash {
			return "", nil, errs.New(errs.Internal, "a router sent other code than it was asked for")
		}
		hash = part.GetHash()
		if source = append(source, part.GetData()...); int64(len(source)) > most {
			return "", nil, errs.New(errs.Invalid, "the source has more than the %d bytes that are allowed", most)
		}
		if !part.GetLast() {
			continue
		}
		if sum := sha256.Sum256(source); hex.EncodeToString(sum[:]) != hash {
			return "", nil, errs.New(errs.Internal, "a router sent code that is not what its hash says")
		}
		return hash, source, nil
	}
}

// attachBody gives the request its body: what came with the head, the whole of a longer one, or a stream.
func (x *exchange) attachBody(ctx context.Context, req *call.Request) error {
	first := x.head.GetBody()
	if !x.head.GetStreamed() && (first == nil || first.GetLast()) {
		req.Body = first.GetData()
		return nil
	}
	x.more = true
	if err := x.send(&pb.NodeResponse{Part: &pb.NodeResponse_Accepted{Accepted: &pb.Accepted{}}}); err != nil {
		return err
	}
	if x.head.GetStreamed() {
		req.Stream = &bodyReader{ctx: ctx, x: x, rest: first.GetData(), last: first.GetLast()}
		return nil
	}
	most := max(req.Policy.InputBytes, smallBody)
	req.Body = append(req.Body, first.GetData()...)
	for {
		part, err := x.receiveBody()
		if err != nil {
			return err
		}
		if req.Body = append(req.Body, part.GetData()...); int64(len(req.Body)) > most {
			return errs.New(errs.Invalid, "the input has more than the %d bytes that are allowed", most)
		}
		if part.GetLast() {
			return nil
		}
	}
}

// smallBody is what a body may have whatever the policy says of inputs: that of a request to an HTTP-shaped function.
const smallBody = 64 << 10

func (x *exchange) receiveBody() (*pb.BodyPart, error) {
	m, err := x.stream.Recv()
	if err != nil {
		return nil, err
	}
	part := m.GetBody()
	if part == nil {
		return nil, errs.New(errs.Internal, "a router sent something else where a body was to come")
	}
	return part, nil
}

// bodyReader is a streamed body. A Recv that waits ends with the stream's context, when the handler has returned.
type bodyReader struct {
	ctx  context.Context
	x    *exchange
	rest []byte
	last bool
	err  error
}

// Read implements io.Reader.
func (r *bodyReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		switch {
		case r.err != nil:
			return 0, r.err
		case r.ctx.Err() != nil:
			return 0, io.ErrUnexpectedEOF
		case r.last:
			return 0, io.EOF
		}
		part, err := r.x.receiveBody()
		if err != nil {
			r.err = io.ErrUnexpectedEOF // the caller's end broke off; it is no end of the body
			continue
		}
		r.rest, r.last = part.GetData(), part.GetLast()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (x *exchange) send(m *pb.NodeResponse) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended {
		return errEnded
	}
	x.ended = m.GetResult() != nil
	return x.stream.Send(m)
}

var errEnded = errors.New("noderpc: the call has been answered")

// Head implements call.Sink.
func (x *exchange) Head(status int, headers []call.Header) error {
	return x.send(&pb.NodeResponse{Part: &pb.NodeResponse_Head{Head: &pb.AnswerHead{
		Status: int32(status), Headers: nodewire.Headers(headers),
	}}})
}

// Data implements call.Sink: what was sent has been copied when it returns.
func (x *exchange) Data(p []byte) error {
	return x.send(&pb.NodeResponse{Part: &pb.NodeResponse_Data{Data: p}})
}

// Log implements call.Sink. Lines that do not go along with the answer stay in this machine's ring.
func (x *exchange) Log(l call.LogLine) {
	if x.logs {
		_ = x.send(&pb.NodeResponse{Part: &pb.NodeResponse_Log{Log: nodewire.LogLine(&l)}})
	}
}

// answer sends the result, a long value before it. again says that the stream goes on.
func (x *exchange) answer(res *call.Result, e *errs.Error) (again bool, err error) {
	out := nodewire.Result(res, e)
	for len(out.Value) > nodewire.PartBytes {
		part := out.Value[:nodewire.PartBytes]
		out.Value = out.Value[nodewire.PartBytes:]
		if err := x.send(&pb.NodeResponse{Part: &pb.NodeResponse_Data{Data: part}}); err != nil {
			return false, err
		}
	}
	out.Again = x.head.GetAgain() && !x.more && !x.server.leaves()
	err = x.send(&pb.NodeResponse{Part: &pb.NodeResponse_Result{Result: out}})
	if err != nil && errors.Is(x.stream.Context().Err(), context.Canceled) {
		return false, nil // the router's caller went away
	}
	return out.Again, err
}

var _ call.Sink = (*exchange)(nil)
