package router

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// tracer starts a span per call. A nil one does nothing and costs nothing.
type tracer struct {
	tracer trace.Tracer
	w3c    propagation.TraceContext
}

func newTracer(p trace.TracerProvider) *tracer {
	if p == nil {
		return nil
	}
	return &tracer{tracer: p.Tracer("paddock/router")}
}

// tracing is one call's span. A nil one does nothing.
type tracing struct {
	tracer *tracer
	span   trace.Span
}

// start begins the call's span under the one that the caller names in traceparent.
func (t *tracer) start(ctx context.Context, inv *invocation, from propagation.TextMapCarrier) *tracing {
	if t == nil {
		return nil
	}
	ctx = t.w3c.Extract(ctx, from)
	_, span := t.tracer.Start(ctx, "paddock.call", trace.WithSpanKind(trace.SpanKindServer),
		trace.WithTimestamp(inv.began), trace.WithAttributes(
			attribute.String("paddock.call_id", string(inv.req.ID)),
			attribute.String("paddock.tenant", string(inv.req.Tenant)),
			attribute.String("paddock.transport", inv.transport.String())))
	return &tracing{tracer: t, span: span}
}

func noEnd(error) {}

// node returns the context for the node, under a span that the returned function ends.
func (t *tracing) node(ctx context.Context) (context.Context, func(error)) {
	if t == nil {
		return ctx, noEnd
	}
	ctx, span := t.tracer.tracer.Start(trace.ContextWithSpan(ctx, t.span), "paddock.invoke")
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, string(errs.KindOf(err)))
		}
		span.End()
	}
}

// end ends the call's span.
func (t *tracing) end(res *call.Result, e *errs.Error) {
	if t == nil {
		return
	}
	if res != nil {
		t.span.SetAttributes(attribute.String("paddock.container", string(res.Container)),
			attribute.String("paddock.start", string(res.Start)), attribute.String("paddock.isolation", string(res.Isolation)))
	}
	if e != nil {
		t.span.SetAttributes(attribute.String("paddock.outcome", string(e.Kind)))
		t.span.SetStatus(codes.Error, string(e.Kind))
	}
	t.span.End()
}

// inject puts the call's span into the header that a function sees, in place of the caller's.
func (t *tracing) inject(headers []call.Header) []call.Header {
	if t == nil {
		return headers
	}
	carrier := propagation.MapCarrier{}
	t.tracer.w3c.Inject(trace.ContextWithSpan(context.Background(), t.span), carrier)
	kept := headers[:0]
	for _, h := range headers {
		if h.Name != "traceparent" && h.Name != "tracestate" {
			kept = append(kept, h)
		}
	}
	for name, value := range carrier {
		kept = append(kept, call.Header{Name: name, Value: value})
	}
	return kept
}

// headerCarrier and metadataCarrier read traceparent out of HTTP header fields and gRPC metadata.
type headerCarrier http.Header

func (c headerCarrier) Get(key string) string { return http.Header(c).Get(key) }
func (c headerCarrier) Set(string, string)    {}
func (c headerCarrier) Keys() []string        { return nil }

type metadataCarrier metadata.MD

func (c metadataCarrier) Get(key string) string { return single(metadata.MD(c)[key]) }
func (c metadataCarrier) Set(string, string)    {}
func (c metadataCarrier) Keys() []string        { return nil }
