package router

import (
	"context"
	"time"

	"paddock/internal/identity"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// usageTimeout is how long controllers may take to say what a tenant has there.
const usageTimeout = 2 * time.Second

// catalogServer is the catalogue's API, where a tenant that is shown comes with what it uses of its limits: calls are this router's,
// containers the controllers'.
type catalogServer struct {
	pb.CatalogServer
	router *Router
}

// GetTenant implements paddock.v1.Catalog.
func (s *catalogServer) GetTenant(ctx context.Context, req *pb.GetTenantRequest) (*pb.Tenant, error) {
	out, err := s.CatalogServer.GetTenant(ctx, req)
	if err != nil {
		return nil, err
	}
	if out.Usage == nil {
		out.Usage = &pb.TenantUsage{}
	}
	t := tenant.ID(out.GetId())
	calls, perSecond := s.router.admission.usage(t, time.Now())
	out.Usage.Calls, out.Usage.CallsPerSecond = int32(calls), float64(perSecond)
	s.containers(ctx, t, out.Usage)
	return out, nil
}

// containers adds what the tenant has at controllers. Who may see the tenant may see that; the list itself is for operators.
func (s *catalogServer) containers(ctx context.Context, t tenant.ID, u *pb.TenantUsage) {
	if s.router.cfg.Pools == nil {
		u.Incomplete = "no controller shows its containers"
		return
	}
	ctx, cancel := context.WithTimeout(identity.With(ctx, identity.Identity{Role: identity.RoleOperator}), usageTimeout)
	defer cancel()
	all, err := s.router.cfg.Pools.ListContainers(ctx, &pb.ListContainersRequest{Tenant: string(t)})
	if err != nil {
		u.Incomplete = "a controller does not answer"
		return
	}
	for _, c := range all.GetContainers() {
		if c.GetState() != "assigned" {
			continue // on its way out, it does not count
		}
		u.Containers++
		u.MemoryBytes += c.GetMemoryBytes()
		u.CpuMillis += c.GetCpuMillis()
	}
}
