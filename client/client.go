// Package client calls a Paddock service from Go: functions and pipelines over gRPC, with failures as errors that say their kind.
// What has not started is repeated, within the context, as the service asks for. It manages nothing: the management calls are
// services of paddock/proto/paddock/v1, on the connection that Conn returns.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	pb "paddock/proto/paddock/v1"
)

// DefaultAttempts is how often a call is made that has not started.
const DefaultAttempts = 3

// Options say where the service is and who asks. Address and Key are needed.
type Options struct {
	Address  string      // host:port of either listener
	Key      string      // API key
	Tenant   string      // with an operator's key
	TLS      *tls.Config // nil: in the clear
	Attempts int         // 0: DefaultAttempts
}

// Client is a connection to the service. Safe for concurrent use; Close ends it.
type Client struct {
	conn     *grpc.ClientConn
	attempts int
}

// New makes a Client. It connects with the first call.
func New(o Options) (*Client, error) {
	if o.Address == "" || o.Key == "" {
		return nil, errors.New("client: Address and Key are needed")
	}
	if o.Attempts <= 0 {
		o.Attempts = DefaultAttempts
	}
	creds := insecure.NewCredentials()
	if o.TLS != nil {
		creds = credentials.NewTLS(o.TLS)
	}
	named := func(ctx context.Context) context.Context {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+o.Key)
		if o.Tenant != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "paddock-tenant", o.Tenant)
		}
		return ctx
	}
	conn, err := grpc.NewClient(o.Address, grpc.WithTransportCredentials(creds), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, m string, req, res any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return next(named(ctx), m, req, res, cc, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, m string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return next(named(ctx), d, cc, m, opts...)
		}))
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, attempts: o.Attempts}, nil
}

// Conn is the connection, with the credential, for the services that this package does not wrap.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Invoke runs a function ("name" or "name@version") with an input, JSON, and returns its value, JSON. Failures are *Error.
func (c *Client) Invoke(ctx context.Context, function string, input []byte) ([]byte, error) {
	res, err := c.Do(ctx, &pb.InvokeRequest{Target: &pb.InvokeRequest_Function{Function: function}, Input: input})
	return res.GetOutput(), err
}

// Do runs a call as it is described. With an error of the code's the response is there as well. Failures are *Error.
func (c *Client) Do(ctx context.Context, req *pb.InvokeRequest) (*pb.InvokeResponse, error) {
	for attempt := 1; ; attempt++ {
		res, err := pb.NewSandboxClient(c.conn).Invoke(ctx, req)
		if err == nil && res.GetError() == nil {
			return res, nil
		}
		e := errorOf(res.GetError(), err)
		if attempt == c.attempts || e.Started != "no" || e.Kind != "limited" && e.Kind != "no_capacity" || !wait(ctx, e.RetryAfter) {
			return res, e
		}
	}
}

// wait waits, and says whether there is time for that and for more.
func wait(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Error is a failure as the service tells it; errors.As finds it.
type Error struct {
	Kind       string // user_error, timeout, limited, …; docs/api.md lists them
	Message    string
	Started    string // no, maybe or yes: whether the code may have run
	Fault      string // tenant, caller or platform
	Cause      string
	RetryAfter time.Duration
	Thrown     *pb.Thrown // what the code threw, if it did
	Err        error      // of the transport
}

func (e *Error) Error() string {
	if e.Thrown != nil {
		return "paddock: " + e.Kind + ": " + e.Thrown.GetName() + ": " + e.Thrown.GetMessage()
	}
	return "paddock: " + e.Kind + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.Err }

func errorOf(in *pb.CallError, err error) *Error {
	if err == nil {
		return &Error{Kind: in.GetKind(), Message: in.GetMessage(), Started: in.GetStarted(), Fault: in.GetFault(), Cause: in.GetCause(),
			RetryAfter: in.GetRetryAfter().AsDuration(), Thrown: in.GetThrown()}
	}
	st := status.Convert(err)
	e := &Error{Kind: "internal", Message: st.Message(), Started: "maybe", Err: err}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			e.Kind, e.Started, e.Fault, e.Cause = d.GetReason(), d.GetMetadata()["started"], d.GetMetadata()["fault"], d.GetMetadata()["cause"]
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	if len(st.Details()) == 0 {
		switch st.Code() {
		case codes.DeadlineExceeded:
			e.Kind = "timeout"
		case codes.Canceled:
			e.Kind = "cancelled"
		case codes.Unavailable:
			e.Kind = "no_capacity"
		}
	}
	return e
}
