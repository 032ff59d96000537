package main

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
)

// traceFlushTime is how long the last spans may take to leave at a stop.
const traceFlushTime = 3 * time.Second

// startTracing sends spans where OTEL_EXPORTER_OTLP_ENDPOINT says; without it there are none. The exporter reads the other
// OTEL_ variables by itself.
func (s *service) startTracing(ctx context.Context) (trace.TracerProvider, error) {
	endpoint := s.app.getenv("OTEL_EXPORTER_OTLP_ENDPOINT")
	if endpoint == "" && s.app.getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return nil, nil
	}
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("traces to %s: %w", endpoint, err)
	}
	p := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(
			semconv.ServiceName("paddock"), semconv.ServiceVersion(release()), semconv.ServiceInstanceID(s.data.ID))),
	)
	s.onStop("traces", func(ctx context.Context, _ bool) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceFlushTime)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			s.log.Warn("the last traces could not be sent", "err", err)
		}
		return nil
	})
	return p, nil
}
