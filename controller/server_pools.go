package controller

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	"paddock/pool"
	pb "paddock/proto/paddock/v1"
)

// PoolsServer shows and steers the controller's pool. For operators only: it asks for the role again, although the router
// has.
type PoolsServer struct {
	pb.UnimplementedPoolsServer
	c *Controller
}

// Pools returns the server of the Pools API.
func (c *Controller) Pools() *PoolsServer { return &PoolsServer{c: c} }

func operatorOnly(ctx context.Context) error {
	who, ok := identity.From(ctx)
	if !ok {
		return errs.New(errs.Unauthenticated, "no credential")
	}
	if who.Role != identity.RoleOperator {
		return errs.New(errs.Denied, "an operator's key is needed for this")
	}
	return nil
}

// ListContainers lists a tenant's containers, or all.
func (s *PoolsServer) ListContainers(ctx context.Context, req *pb.ListContainersRequest) (*pb.ListContainersResponse, error) {
	if err := operatorOnly(ctx); err != nil {
		return nil, err
	}
	res := &pb.ListContainersResponse{}
	for _, i := range s.c.pool.Containers(tenant.ID(req.GetTenant())) {
		if req.GetTenant() == "" || string(i.Tenant) == req.GetTenant() {
			res.Containers = append(res.Containers, s.container(i))
		}
	}
	return res, nil
}

func (s *PoolsServer) container(i pool.Info) *pb.Container {
	engine := s.c.cfg.Pool.Engine
	out := &pb.Container{
		Id: string(i.ID), State: stateName(i.State), Tenant: string(i.Tenant), Runtime: s.c.cfg.Pool.Image.Runtime,
		Isolation: string(engine.Isolation()), Engine: engine.Name(), Frozen: i.Frozen, Running: int32(i.Running), Calls: i.Calls,
		Created: stamp(i.Created), Assigned: stamp(i.Assigned), LastUsed: stamp(i.IdleSince), Cause: string(i.Cause),
		MemoryBytes: i.MemoryCharge, Image: i.Image, Controller: s.c.cfg.ID, CpuMillis: i.CPUUsed,
	}
	if i.Running > 0 {
		out.LastUsed = timestamppb.Now()
	}
	return out
}

func stateName(s pool.State) string { return s.String() }

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// GetPool returns the pool's figures.
func (s *PoolsServer) GetPool(ctx context.Context, _ *pb.GetPoolRequest) (*pb.PoolStatus, error) {
	if err := operatorOnly(ctx); err != nil {
		return nil, err
	}
	return s.status(), nil
}

func (s *PoolsServer) status() *pb.PoolStatus {
	st, cfg := s.c.pool.Stats(), s.c.cfg.Pool
	out := &pb.PoolStatus{
		Controller: s.c.cfg.ID, Engine: cfg.Engine.Name(), Isolation: string(cfg.Engine.Isolation()), Image: s.c.currentImage(),
		Creating: int32(st.Creating), Ready: int32(st.Ready), Assigned: int32(st.Assigned), Frozen: int32(st.Frozen),
		Draining: int32(st.Draining), Waiting: int32(st.Waiting), MinReady: int32(st.MinReady), MaxReady: int32(st.MaxReady),
		MaxContainers: int32(st.Limit), MemoryBudgetBytes: st.MemoryBudgetBytes, MemoryReservedBytes: st.MemoryCommittedBytes,
		CreatedTotal: int64(st.Created), LeakedTotal: int64(st.Orphans), RecycledTotal: map[string]int64{},
	}
	for cause, n := range st.Recycled {
		out.RecycledTotal[string(cause)] = int64(n)
	}
	return out
}

// Explain says what the recycling policy would do, per container.
func (s *PoolsServer) Explain(ctx context.Context, req *pb.ExplainRequest) (*pb.ExplainResponse, error) {
	if err := operatorOnly(ctx); err != nil {
		return nil, err
	}
	infos := s.c.pool.Containers("")
	by := map[pool.ContainerID][]pool.Explanation{}
	for _, e := range s.c.pool.Explain(tenant.ID(req.GetTenant()), pool.ContainerID(req.GetContainer())) {
		by[e.Container] = append(by[e.Container], e) // soonest first
	}
	res := &pb.ExplainResponse{}
	now := time.Now()
	for _, i := range infos {
		if req.GetContainer() != "" && string(i.ID) != req.GetContainer() || req.GetTenant() != "" && string(i.Tenant) != req.GetTenant() {
			continue
		}
		res.Containers = append(res.Containers, s.explanation(i, by[i.ID], now))
	}
	if req.GetContainer() != "" && len(res.Containers) == 0 {
		return nil, errs.New(errs.NotFound, "there is no container %.40q", req.GetContainer())
	}
	return res, nil
}

func (s *PoolsServer) explanation(i pool.Info, rules []pool.Explanation, now time.Time) *pb.Explanation {
	out := &pb.Explanation{Container: s.container(i)}
	for _, e := range rules {
		in := max(e.At.Sub(now), 0).Round(time.Second)
		if out.Cause == "" {
			out.Cause, out.In = string(e.Cause), durationpb.New(in)
			out.Next = fmt.Sprintf("drains (%s) in %s", e.Cause, in)
			if e.Due {
				out.Next = fmt.Sprintf("drains (%s) now", e.Cause)
			}
		}
		out.Reasons = append(out.Reasons, fmt.Sprintf("%s in %s: %s", e.Cause, in, e.Why))
	}
	return out
}

// Resize changes the pool's bounds until the process ends.
func (s *PoolsServer) Resize(ctx context.Context, req *pb.ResizeRequest) (*pb.PoolStatus, error) {
	if err := operatorOnly(ctx); err != nil {
		return nil, err
	}
	if err := s.c.pool.Resize(number(req.MinReady), number(req.MaxReady), number(req.MaxContainers)); err != nil {
		return nil, errs.Wrap(errs.Invalid, "resize", err, "%s", err)
	}
	st := s.status()
	s.c.log.Info("pool resized", "min_ready", st.GetMinReady(), "max_ready", st.GetMaxReady(), "max_containers", st.GetMaxContainers())
	s.c.membership.update(func(r *pb.ControllerRecord) { r.Capacity = st.GetMaxContainers() })
	return st, nil
}

func number(n *int32) *int {
	if n == nil {
		return nil
	}
	v := int(*n)
	return &v
}

// Drain recycles one container, a tenant's, or all.
func (s *PoolsServer) Drain(ctx context.Context, req *pb.DrainRequest) (*pb.DrainResponse, error) {
	if err := operatorOnly(ctx); err != nil {
		return nil, err
	}
	named := 0
	for _, set := range []bool{req.GetContainer() != "", req.GetTenant() != "", req.GetAll()} {
		if set {
			named++
		}
	}
	if named != 1 {
		return nil, errs.New(errs.Invalid, "name one of container, tenant and all")
	}
	n := s.c.pool.Drain(pool.Selector{
		Container: pool.ContainerID(req.GetContainer()), Tenant: tenant.ID(req.GetTenant()), All: req.GetAll(),
	}, pool.CauseAdmin)
	if n == 0 && req.GetContainer() != "" {
		return nil, errs.New(errs.NotFound, "no container %.40q is in service", req.GetContainer())
	}
	s.c.log.Info("containers drain by an operator's wish", "containers", n)
	return &pb.DrainResponse{Containers: int32(n)}, nil
}

// Recycle replaces containers one after the other and tells how far it is.
func (s *PoolsServer) Recycle(req *pb.RecycleRequest, stream grpc.ServerStreamingServer[pb.RecycleProgress]) error {
	if err := operatorOnly(stream.Context()); err != nil {
		return err
	}
	runtime := s.c.cfg.Pool.Image.Runtime
	switch named := req.GetTenant() != "" || req.GetRuntime() != ""; {
	case named == req.GetAll():
		return errs.New(errs.Invalid, "name all, or a tenant, a runtime or both")
	case req.GetRuntime() != "" && req.GetRuntime() != runtime:
		return errs.New(errs.NotFound, "there are no containers of runtime %.40q here; there is %s", req.GetRuntime(), runtime)
	}
	began := time.Now()
	var last pool.RenewStep
	err := s.c.pool.Renew(stream.Context(), pool.Renewal{Tenant: tenant.ID(req.GetTenant())}, func(step pool.RenewStep) error {
		last = step
		return stream.Send(progress(step))
	})
	s.c.log.Info("containers were replaced by an operator's wish", "done", last.Done, "total", last.Total, "took", time.Since(began), "err", err)
	if err != nil {
		return errs.Wrap(errs.Cancelled, "recycle", err, "stopped: %d of %d containers were replaced", last.Done, last.Total)
	}
	return nil
}

func progress(s pool.RenewStep) *pb.RecycleProgress {
	out := &pb.RecycleProgress{
		Total: int32(s.Total), Done: int32(s.Done), Container: string(s.Container), Tenant: string(s.Tenant), Unprepared: s.Unprepared,
	}
	if s.Container != "" {
		out.State = stateName(s.State)
	}
	return out
}
