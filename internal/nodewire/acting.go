package nodewire

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
)

// Metadata by which a router says on whose behalf it asks. It counts only on connections on which nobody but a router can be.
const (
	mdRole   = "paddock-acting-role"
	mdTenant = "paddock-acting-tenant"
	mdKey    = "paddock-acting-key"
)

// Act returns a context for requests to a controller on behalf of whoever ctx is of.
func Act(ctx context.Context) context.Context {
	who, ok := identity.From(ctx)
	if !ok {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, mdRole, string(who.Role), mdTenant, string(who.Tenant), mdKey, who.KeyID)
}

// acting is a context with the identity that Act put on the wire.
func acting(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	first := func(name string) string {
		if v := md.Get(name); len(v) > 0 {
			return v[0]
		}
		return ""
	}
	role, ok := identity.ParseRole(first(mdRole))
	if !ok {
		return ctx
	}
	return identity.With(ctx, identity.Identity{Role: role, Tenant: tenant.ID(first(mdTenant)), KeyID: first(mdKey)})
}

// ServerOptions let a controller's services know on whose behalf a router asks.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			res, err := h(acting(ctx), req)
			return res, spoken(err)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return spoken(h(srv, actingStream{ss, acting(ss.Context())}))
		}),
	}
}

// spoken is an error as a status: its kind's code, and the text that callers may read.
func spoken(err error) error {
	var e *errs.Error
	if !errors.As(err, &e) {
		return err
	}
	code := errs.Lookup(e.Kind).GRPC
	if code == codes.OK {
		code = codes.Unknown
	}
	return status.Error(code, e.Message)
}

type actingStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s actingStream) Context() context.Context { return s.ctx }
