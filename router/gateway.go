package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

// local is a gRPC connection inside the process: the REST form of the management calls goes through the same
// interceptor and the same messages as gRPC does. Unary methods only.
type local struct {
	methods map[string]localMethod
	unary   grpc.UnaryServerInterceptor
}

type localMethod struct {
	impl    any
	handler grpc.MethodHandler
}

// RegisterService implements grpc.ServiceRegistrar.
func (l *local) RegisterService(desc *grpc.ServiceDesc, impl any) {
	for _, m := range desc.Methods {
		l.methods["/"+desc.ServiceName+"/"+m.MethodName] = localMethod{impl, m.Handler}
	}
}

// Invoke implements grpc.ClientConnInterface.
func (l *local) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	m, ok := l.methods[method]
	if !ok {
		return status.Errorf(codes.Unimplemented, "there is no method %s", method)
	}
	decode := func(into any) error {
		proto.Merge(into.(proto.Message), args.(proto.Message))
		return nil
	}
	res, err := m.handler(m.impl, ctx, decode, l.unary)
	if err != nil {
		return err
	}
	proto.Merge(reply.(proto.Message), res.(proto.Message))
	return nil
}

// NewStream implements grpc.ClientConnInterface; REST has no streams.
func (l *local) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "no streams here")
}

type exchangeKey struct{}

// exchangeFrom returns the HTTP exchange that a management call came by, nil if it came by gRPC.
func exchangeFrom(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

var (
	restMarshal   = protojson.MarshalOptions{EmitUnpopulated: true}
	restUnmarshal = protojson.UnmarshalOptions{} // strict: an unknown field is a mistake
)

// newGateway makes the REST form of the management services that are served.
func (r *Router) newGateway() (*runtime.ServeMux, error) {
	r.local = &local{methods: map[string]localMethod{}, unary: r.unary}
	r.registerServices(r.local)
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard,
			&runtime.JSONPb{MarshalOptions: restMarshal, UnmarshalOptions: restUnmarshal}),
		runtime.WithDisablePathLengthFallback(), // it would let a header choose another method than was authorized
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithErrorHandler(restError),
		runtime.WithRoutingErrorHandler(func(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler,
			_ http.ResponseWriter, req *http.Request, _ int) {
			exchangeFrom(req.Context()).fail(errs.New(errs.NotFound, "there is nothing at %.200q", req.URL.Path))
		}),
	)
	ctx := context.Background() // the generated code does not keep it
	return mux, errors.Join(
		pb.RegisterCatalogHandlerClient(ctx, mux, pb.NewCatalogClient(r.local)),
		pb.RegisterKeysHandlerClient(ctx, mux, pb.NewKeysClient(r.local)),
		pb.RegisterPoolsHandlerClient(ctx, mux, pb.NewPoolsClient(r.local)),
		pb.RegisterLogsHandlerClient(ctx, mux, pb.NewLogsClient(r.local)))
}

// restError answers with a problem document.
func restError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, req *http.Request,
	err error) {
	x := exchangeFrom(req.Context())
	if x == nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	if st, ok := status.FromError(err); ok && st.Code() == codes.InvalidArgument && errs.KindOf(err) == errs.Internal {
		x.fail(x.undecoded(fromService(err))) // the gateway's own: services fail with our errors
		return
	}
	x.fail(fromService(err))
}

// Bounds on management requests.
const (
	managementBytes = 1 << 20
	managementTime  = time.Minute
)

// serveManagement passes a request on to the gateway, its body read within bounds.
func serveManagement(x *exchange) error { return x.manage(managementBytes) }

// servePublish takes the code of several functions in one request, as much as gRPC does.
func servePublish(x *exchange) error { return x.manage(grpcMaxMessageBytes) }

func (x *exchange) manage(limit int64) error {
	body, err := x.readBody(limit, "request", x.began.Add(managementTime))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithDeadline(context.WithValue(x.r.Context(), exchangeKey{}, x), x.began.Add(managementTime))
	defer cancel()
	req := x.r.WithContext(ctx)
	req.Body = io.NopCloser(bytes.NewReader(body))
	req.ContentLength = int64(len(body))
	x.w.Header()["Cache-Control"] = noStore
	x.router.gateway.ServeHTTP(x.w, req)
	return nil
}

// serveDeploy is PUT /v1/functions/{name}: the message as JSON, or the source text itself.
func serveDeploy(x *exchange) error {
	t, ok := x.router.cfg.Catalogue.Tenant(x.who.Tenant)
	if !ok {
		return errs.New(errs.NotFound, "there is no tenant %q", x.who.Tenant)
	}
	p := t.Policy
	switch x.contentType() {
	case "application/javascript", "text/javascript", "application/ecmascript", "text/ecmascript",
		"application/x-javascript", "text/plain":
	default:
		return x.manage(p.SourceBytes/3*4 + 64<<10) // base64 in JSON
	}
	req, err := deployQuery(x)
	if err != nil {
		return err
	}
	if req.Source, err = x.readBody(p.SourceBytes, "source", x.began.Add(managementTime)); err != nil {
		return err
	}
	if err := checkSource(req.Source, p); err != nil {
		return err
	}
	ctx := context.WithValue(x.r.Context(), exchangeKey{}, x)
	out, err := pb.NewCatalogClient(x.router.local).DeployFunction(ctx, req)
	if err != nil {
		return fromService(err)
	}
	return x.message(out)
}

// deployQuery reads what the query says of a version.
func deployQuery(x *exchange) (*pb.DeployFunctionRequest, error) {
	req := &pb.DeployFunctionRequest{Name: x.params[0]}
	query, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return nil, errs.New(errs.Invalid, "the query string cannot be read: escape its values")
	}
	for name, values := range query {
		switch name {
		case "kind":
			req.Kind = values[0]
		case "runtime":
			req.Runtime = values[0]
		case "note":
			req.Note = values[0]
		case "keep_active":
			req.KeepActive, err = parseFlag(name, values[0])
		case "expected_revision":
			req.ExpectedRevision, err = parseRevision(name, values[0])
		default:
			err = errs.New(errs.Invalid, "there is no query parameter %.40q: use kind, runtime, note, keep_active or expected_revision", name)
		}
		if err != nil {
			return nil, err
		}
	}
	return req, nil
}

// message answers with a message as JSON.
func (x *exchange) message(m proto.Message) error {
	body, err := restMarshal.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	h := x.w.Header()
	h["Content-Type"] = jsonContentType
	h["Cache-Control"] = noStore
	_, _ = x.w.Write(body)
	return nil
}
