package router

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"runtime"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	pb "paddock/proto/paddock/v1"
)

// Bounds of the gRPC server. Connections have no maximum age: it would cut long InvokeStream streams without goaway.
const (
	grpcMaxStreams      = 1024
	grpcMaxHeaderBytes  = 32 << 10
	grpcMaxMessageBytes = 32 << 20 // tenants' own limits are far below, and are checked on the message
	grpcWindowBytes     = 1 << 20
	keepaliveLeast      = 10 * time.Second // a client that pings more often is cut off
	keepaliveEvery      = 30 * time.Second // we ping a silent client
	keepaliveTimeout    = 10 * time.Second
	maxConnectionIdle   = 15 * time.Minute
	handshakeTimeout    = 10 * time.Second
)

// Metadata keys and trailers.
const (
	mdAuthority     = ":authority"
	mdAuthorization = "authorization"
	mdTenant        = "paddock-tenant"
	mdMinRevision   = "paddock-min-revision"
	mdCallID        = "paddock-call-id"
	mdError         = "paddock-error"
	mdStarted       = "paddock-started"
	mdRetryAfter    = "retry-after"
	mdTiming        = "server-timing"
	mdContainer     = "paddock-container"
)

func (r *Router) newGRPC() *grpc.Server {
	options := []grpc.ServerOption{
		grpc.UnaryInterceptor(r.unary),
		grpc.StreamInterceptor(r.stream),
		grpc.MaxRecvMsgSize(grpcMaxMessageBytes),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.InTapHandle(r.tap),
		grpc.MaxConcurrentStreams(grpcMaxStreams),
		grpc.MaxHeaderListSize(grpcMaxHeaderBytes),
		grpc.InitialWindowSize(grpcWindowBytes),
		grpc.InitialConnWindowSize(4 * grpcWindowBytes),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.NumStreamWorkers(uint32(4 * runtime.GOMAXPROCS(0))),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveLeast, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: maxConnectionIdle, Time: keepaliveEvery, Timeout: keepaliveTimeout,
		}),
	}
	if r.cfg.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(r.cfg.TLS.Clone())))
	}
	s := grpc.NewServer(options...)
	r.registerServices(earlyServer{s, r.unaryRPC})
	reflection.Register(s)
	return s
}

// registerServices registers all that is served over gRPC but reflection; also on the in-process connection that the REST
// form of the management calls goes through.
func (r *Router) registerServices(s grpc.ServiceRegistrar) {
	pb.RegisterSandboxServer(s, &sandboxServer{router: r})
	healthpb.RegisterHealthServer(s, r.health)
	if r.kept != nil {
		pb.RegisterLogsServer(s, r.kept)
	}
	if r.cfg.Catalog != nil {
		pb.RegisterCatalogServer(s, &catalogServer{CatalogServer: r.cfg.Catalog, router: r})
	}
	if r.cfg.Keys != nil {
		pb.RegisterKeysServer(s, r.cfg.Keys)
	}
	if r.cfg.Pools != nil {
		pb.RegisterPoolsServer(s, r.cfg.Pools)
	}
	if r.cfg.Audit != nil {
		pb.RegisterAuditServer(s, &auditServer{log: r.cfg.Audit})
	}
}

// unary is the choke point of unary methods: of those that come by REST, since on the wire there are only streams.
func (r *Router) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (res any, err error) {
	q := r.newRequest(ctx, info.FullMethod)
	defer func() {
		if v := recover(); v != nil {
			res, err = nil, q.panicked(v)
		}
	}()
	if err := q.authorize(); err != nil {
		return nil, q.failed(err)
	}
	if err := q.begin(req); err != nil {
		return nil, q.failed(err)
	}
	res, err = next(q.context(), req)
	err = q.record.end(q.ctx, res, fromService(err))
	return res, q.ended(err)
}

// stream is the choke point of streaming methods.
func (r *Router) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	q := r.newRequest(ss.Context(), info.FullMethod)
	q.trailer = ss.SetTrailer
	defer stopAwaiting(q.ctx)
	defer func() {
		if v := recover(); v != nil {
			err = q.panicked(v)
		}
	}()
	if err := q.authorize(); err != nil {
		return q.failed(err)
	}
	if q.rule.role == public {
		leave, err := r.admitPublic(q.ctx)
		if err != nil {
			return q.failed(err)
		}
		defer leave()
	}
	if q.rule.call || r.unaryRPC[q.method] { // calls of a stream are each authorized, and drained when the router ends
		return q.ended(next(srv, &authorizedStream{ServerStream: ss, ctx: q.context()}))
	}
	ctx, stop := r.lasting(q.context(), q.rule, q.cred)
	defer stop()
	err = next(srv, &managementStream{authorizedStream{ServerStream: ss, ctx: ctx}, q})
	return q.ended(q.record.end(ctx, nil, whyEnded(ctx, fromService(err))))
}

// recheckEvery is how often the credential of a stream that lasts is looked at again.
const recheckEvery = 2 * time.Second

// lasting is the context of what would last for ever: it ends with the router, and when the credential it was opened with
// is no longer good. stop must be called.
func (r *Router) lasting(ctx context.Context, ru *rule, c credential) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	detach := context.AfterFunc(r.lifetime, func() { cancel(nil) })
	if ru.role != public {
		go func() {
			tick := time.NewTicker(recheckEvery)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					if _, _, err := r.auth.authorize(ru, c); err != nil {
						cancel(err)
					}
				}
			}
		}()
	}
	return ctx, func() { detach(); cancel(nil) }
}

// whyEnded is err, or what ended the context of a stream that lasts.
func whyEnded(ctx context.Context, err error) error {
	var e *errs.Error
	if errors.As(context.Cause(ctx), &e) {
		return e
	}
	return err
}

// authorizedStream carries the identity in its context.
type authorizedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *authorizedStream) Context() context.Context { return s.ctx }

// managementStream passes a request on once it is known whose it is and it is written down.
type managementStream struct {
	authorizedStream
	q *request
}

func (s *managementStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if err := s.q.begin(m); err != nil {
		return err
	}
	s.q.record.opened()
	return nil
}

// request is one gRPC request at the choke point.
type request struct {
	router  *Router
	ctx     context.Context
	method  string
	rule    *rule
	id      call.ID
	began   time.Time
	who     identity.Identity
	cred    credential
	slot    *invocation // of a call that was admitted before its message was read
	trailer func(metadata.MD)
	record  *record
}

type requestKey struct{}

// requestFrom returns the request that a handler serves.
func requestFrom(ctx context.Context) *request {
	q, _ := ctx.Value(requestKey{}).(*request)
	return q
}

func (r *Router) newRequest(ctx context.Context, method string) *request {
	return &request{router: r, ctx: ctx, method: method, rule: r.byRPC[method], id: newCallID(), began: time.Now()}
}

// context returns what the handler gets: services read the identity, calls the whole request.
func (q *request) context() context.Context {
	ctx := context.WithValue(q.ctx, requestKey{}, q)
	if q.rule.call {
		return ctx
	}
	return identity.With(ctx, q.who)
}

// authorize checks the credential. A request that came in by HTTP and passed the choke point there carries its identity.
func (q *request) authorize() error {
	if q.rule == nil {
		return q.router.turnAway(q.ctx, &q.who, q.source(), errs.New(errs.NotFound, "there is no method %.200q", q.method))
	}
	if x := exchangeFrom(q.ctx); x != nil && x.rule == q.rule {
		q.id, q.who = x.id, x.who
		return nil
	}
	md, _ := metadata.FromIncomingContext(q.ctx)
	if _, own := q.router.cfg.Catalogue.TenantOfHost(single(md[mdAuthority])); own {
		return errs.New(errs.NotFound, "there is no gRPC at a tenant's own host name: use the service's")
	}
	q.cred = credential{authorization: single(md[mdAuthorization]), tenant: single(md[mdTenant])}
	who, why, err := q.router.auth.authorize(q.rule, q.cred)
	if why != "" {
		q.router.auditDenied(q.rule, &who, q.source(), q.id, why, err)
	}
	if err != nil {
		return q.router.turnAway(q.ctx, &who, q.source(), q.router.auth.slowDown(err, q.source()))
	}
	q.who = who
	return q.router.takeTurn(q.ctx, q.rule, &who, q.source())
}

// begin looks at the message of a request that may pass: whom it names, and what the audit log has to know before.
func (q *request) begin(message any) (err error) {
	if err := ownsNamed(q.rule, &q.who, message); err != nil {
		q.router.auditDenied(q.rule, &q.who, q.source(), q.id, "tenant", err)
		return err
	}
	if err := q.awaitRevision(); err != nil {
		return err
	}
	q.record, err = q.router.auditBegin(q.ctx, q.rule, &q.who, q.source(), q.id, message)
	return err
}

// awaitRevision waits until this router has seen what the caller of a management method wants it to have seen.
func (q *request) awaitRevision() error {
	if q.rule.call || q.rule.role == public {
		return nil
	}
	asked := ""
	if x := exchangeFrom(q.ctx); x != nil {
		asked = x.header(hMinRevision)
	} else if md, ok := metadata.FromIncomingContext(q.ctx); ok {
		asked = single(md[mdMinRevision])
	}
	revision, err := parseRevision("min_revision", asked)
	if err != nil || revision == 0 {
		return err
	}
	return waitRevision(q.ctx, q.router.cfg.Catalogue, revision, q.began.Add(revisionTime))
}

// source is the caller's address.
func (q *request) source() string {
	if x := exchangeFrom(q.ctx); x != nil {
		return x.r.RemoteAddr
	}
	if p, ok := peer.FromContext(q.ctx); ok {
		return p.Addr.String()
	}
	return ""
}

// ended finishes a request that a service answered.
func (q *request) ended(err error) error {
	err = fromService(err)
	if !q.rule.call {
		q.account(err)
	}
	if err != nil {
		return q.failed(err)
	}
	if !q.rule.call {
		q.setTrailer(metadata.Pairs(mdCallID, string(q.id)))
	}
	return nil
}

// account counts a management request and leaves a line of who asked for what.
func (q *request) account(err error) {
	kind, outcome := errs.KindOf(err), "ok"
	if kind != "" {
		outcome = string(kind)
	}
	q.router.metrics.Request(q.method, kind)
	if q.rule.role == public {
		return
	}
	q.router.log.LogAttrs(q.ctx, slog.LevelInfo, "request", slog.String("call", string(q.id)),
		slog.String("method", q.method), slog.String("key", q.who.KeyID), slog.String("role", string(q.who.Role)),
		slog.String("tenant", string(q.who.Tenant)), slog.String("outcome", outcome),
		slog.Int64("total_us", time.Since(q.began).Microseconds()))
}

// failed turns err into what goes out. The in-process connection gets it as it is: HTTP has its own form.
func (q *request) failed(err error) error {
	e := errs.From(err)
	if e.Kind == errs.Internal && (q.rule == nil || !q.rule.call) {
		q.router.log.LogAttrs(q.ctx, slog.LevelError, "request failed", slog.String("call", string(q.id)),
			slog.String("method", q.method), slog.String("err", err.Error()))
	}
	if exchangeFrom(q.ctx) != nil {
		return err
	}
	md := metadata.Pairs(mdCallID, string(q.id), mdError, string(e.Kind), mdStarted, startedField(e))
	if e.RetryAfter > 0 {
		md.Set(mdRetryAfter, retryField(e.RetryAfter))
	}
	q.setTrailer(md)
	return grpcStatus(err, q.id)
}

func (q *request) setTrailer(md metadata.MD) {
	if q.trailer != nil {
		q.trailer(md)
		return
	}
	_ = grpc.SetTrailer(q.ctx, md)
}

func (q *request) panicked(v any) error {
	q.router.log.LogAttrs(q.ctx, slog.LevelError, "panic", slog.String("call", string(q.id)),
		slog.String("method", q.method), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
	return q.failed(errs.From(errAbandoned))
}

// naming is what messages that name a tenant look like.
type naming interface{ GetTenant() string }

// ownsNamed holds messages that may name a tenant to the caller's own, whatever the service does; an operator may name
// any. GetTenant names it in id.
func ownsNamed(ru *rule, who *identity.Identity, message any) error {
	if ru.tenant != tenantNamed || who.Role == identity.RoleOperator || message == nil {
		return nil
	}
	name := ""
	switch m := message.(type) {
	case *pb.GetTenantRequest:
		name = m.GetId()
	case naming:
		name = m.GetTenant()
	}
	if name != "" && name != string(who.Tenant) {
		return denied("this key belongs to another tenant")
	}
	return nil
}
