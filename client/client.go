package client

import (
	"context"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

// A connection with calls on it that has been silent for pingEvery is asked whether it lives; the service allows that every 10 s.
const (
	pingEvery   = 20 * time.Second
	pingTimeout = 10 * time.Second
)

// Client is a connection to the service. Safe for concurrent use; it connects with the first call, and again whenever the
// connection is lost. Close ends it.
type Client struct {
	conn   *grpc.ClientConn
	web    *http.Client
	opts   Options
	budget budget
}

// New makes a Client.
func New(o Options) (*Client, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if o.TLS != nil {
		creds = credentials.NewTLS(o.TLS)
	}
	// passthrough: the address goes to Dial as it is, which may be no DNS name.
	conn, err := grpc.NewClient("passthrough:///"+o.Address,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(o.Dial),
		grpc.WithUserAgent(o.UserAgent),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), // one layer repeats, and it knows what has started
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(o.MaxAnswerBytes), grpc.MaxCallSendMsgSize(o.MaxAnswerBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.WithStatsHandler(departures{}),
		grpc.WithUnaryInterceptor(o.nameUnary), grpc.WithStreamInterceptor(o.nameStream))
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, web: o.webClient(), opts: o, budget: newBudget()}, nil
}

// Conn is the connection, with the credential, for the services that this package does not wrap. Their failures are statuses;
// ErrorOf reads them.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Close ends the connection. Calls in flight fail.
func (c *Client) Close() error {
	c.web.CloseIdleConnections()
	return c.conn.Close()
}

// named puts the credential into what is sent.
func (o *Options) named(ctx context.Context) context.Context {
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+o.Key)
	if o.Tenant != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "paddock-tenant", o.Tenant)
	}
	return ctx
}

func (o *Options) nameUnary(
	ctx context.Context, method string, req, res any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	return next(o.named(ctx), method, req, res, cc, opts...)
}

func (o *Options) nameStream(
	ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return next(o.named(ctx), d, cc, method, opts...)
}

// webClient is the client of HTTP-shaped functions. A redirect is the function's answer and is not followed: it may lead
// anywhere, and the key must not go along.
func (o *Options) webClient() *http.Client {
	dial := o.Dial
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) },
			TLSClientConfig:     o.TLS,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     idleWebConn,
			DisableCompression:  true, // bodies come as the function wrote them
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
