package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"paddock/internal/errs"
	"paddock/internal/tenant"
	"paddock/pool"
	pb "paddock/proto/paddock/v1"
)

// Draining a controller: its record says so, the others bind its tenants (takeover.go), and what is bound elsewhere goes here, calls
// in flight within their tenants' drain_timeout. No call fails by it.

const (
	// handoverWait is how long a tenant's containers wait for another controller to have some.
	handoverWait = 15 * time.Second
	handoverLook = 50 * time.Millisecond
)

// drain is how far a controller's draining is.
type drain struct {
	mu         sync.Mutex
	on         bool
	began      time.Time
	moved      int   // tenants that were warm elsewhere before
	unprepared int   // tenants for whom nobody had room in time
	overdue    int64 // the pool's count at the beginning
	stop       context.CancelFunc
}

// Drain tells routers and other controllers that this one takes no new work: what runs goes on. Undrain takes it back. A restart puts
// it back into service, unless an operator drained it.
func (c *Controller) Drain() {
	c.drain.mu.Lock()
	first := !c.drain.on
	if first {
		overdue := int64(c.pool.Stats().OverdueCalls)
		c.drain.on, c.drain.began, c.drain.moved, c.drain.unprepared, c.drain.overdue = true, time.Now(), 0, 0, overdue
	}
	c.drain.mu.Unlock()
	if first {
		c.log.Info("draining")
		c.membership.update(func(r *pb.ControllerRecord) { r.Draining = true })
	}
}

// Undrain takes new work again. What was handed over stays where it is. It fails, and changes nothing, where the next start would drain.
func (c *Controller) Undrain() error {
	if c.cfg.DrainFile != "" {
		if err := os.Remove(c.cfg.DrainFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget that it drains: %w", err)
		}
	}
	c.drain.mu.Lock()
	was, stop := c.drain.on, c.drain.stop
	c.drain.on, c.drain.stop = false, nil
	c.drain.mu.Unlock()
	if stop != nil {
		stop()
	}
	if was {
		c.log.Info("draining is over: it takes new work again")
		c.retire()
		c.membership.update(func(r *pb.ControllerRecord) { r.Draining = false })
	}
	return nil
}

// keepDrain notes for the next start that an operator has this controller drained. A machine whose disk is full is drained all the same.
func (c *Controller) keepDrain() {
	if c.cfg.DrainFile == "" {
		return
	}
	if err := os.WriteFile(c.cfg.DrainFile, nil, 0o600); err != nil {
		c.log.Error("that it drains cannot be kept: a restart will put it back into service", "err", err)
	}
}

// keptDrain drains if an operator wanted so before this start: the first registration says so, and no warm container is made.
func (c *Controller) keptDrain() (bool, error) {
	if c.cfg.DrainFile == "" || c.others == nil {
		return false, nil
	}
	if _, err := os.Stat(c.cfg.DrainFile); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return false, fmt.Errorf("whether this controller drains: %w", err)
	}
	c.Drain()
	c.retire()
	return true, nil
}

// Draining says whether it drains, or has.
func (c *Controller) Draining() bool {
	c.drain.mu.Lock()
	defer c.drain.mu.Unlock()
	return c.drain.on
}

// HandOver drains and returns when no tenant has a container here that takes calls, or when ctx ends. Where nobody else could take
// a tenant, or the store is out of sight, it does not wait. In a service of one controller it does nothing but Drain.
func (c *Controller) HandOver(ctx context.Context) {
	c.Drain()
	if c.others != nil && c.others.view.Age() <= outOfSight {
		c.handOver(ctx)
	}
}

// retire has the pool take no new tenants as long as the controller drains.
func (c *Controller) retire() {
	c.drain.mu.Lock()
	defer c.drain.mu.Unlock()
	c.pool.Retire(c.drain.on)
}

// handOver lets go of what others have, as long as the controller drains.
func (c *Controller) handOver(ctx context.Context) {
	c.retire()
	began := time.Now()
	for c.Draining() {
		left := c.others.held()
		if len(left) == 0 {
			return
		}
		for t := range left {
			c.letGo(t, time.Since(began) > handoverWait)
		}
		if !sleep(ctx, handoverLook) {
			return
		}
	}
}

// letGo gives a tenant up if it is warm elsewhere, or if it has waited for long enough.
func (c *Controller) letGo(t tenant.ID, late bool) {
	moved := c.others.servedElsewhere(t, c.others.self())
	if !moved && !late {
		return
	}
	c.drain.mu.Lock()
	if moved {
		c.drain.moved++
	} else {
		c.drain.unprepared++
	}
	c.drain.mu.Unlock()
	why := "another controller has a container for it"
	if !moved {
		why = "no other controller had room for it in time"
	}
	c.giveUp(t, 0, pool.CauseAdmin, why)
}

// giveUp takes all but keep of a tenant's containers out of service here because calls find others elsewhere.
func (c *Controller) giveUp(t tenant.ID, keep int, cause pool.Cause, why string) {
	given := c.pool.Handover(t, keep, cause)
	for _, a := range given {
		c.assignments.drop(a)
	}
	c.assignments.hurry()
	c.log.Info("a tenant is given up", "tenant", t, "cause", cause, "why", why, "containers", len(given), "kept", keep)
}

// startHandOver hands over beside everything else, once the store is in sight, until Undrain. Drain has been called, and may have been
// taken back by the time it begins.
func (c *Controller) startHandOver() {
	c.drain.mu.Lock()
	defer c.drain.mu.Unlock()
	if c.drain.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(c.ctx)
	c.drain.stop = stop
	c.begin(func() {
		defer stop()
		for c.others.view.Age() > outOfSight {
			if !sleep(ctx, lookEvery) {
				return
			}
		}
		c.handOver(ctx)
	})
}

// nodeStatus is the controller as an operator sees it.
func (c *Controller) nodeStatus() *pb.NodeStatus {
	rec, _ := c.membership.current()
	st := c.pool.Stats()
	out := &pb.NodeStatus{
		Id: rec.GetId(), Address: rec.GetAddress(), Region: rec.GetRegion(), Version: rec.GetVersion(), TrustClass: rec.GetTrustClass(),
		Isolation: rec.GetIsolation(), State: "serving", Ready: int32(st.Ready), Assigned: int32(st.Assigned), InFlight: int32(st.InFlight),
	}
	out.Images, out.Rollout = c.imageStatus(st)
	c.drain.mu.Lock()
	defer c.drain.mu.Unlock()
	if !c.drain.on {
		return out
	}
	out.State = "draining"
	if st.Creating+st.Ready+st.Assigned+st.Draining == 0 {
		out.State = "drained"
	}
	out.Moved, out.Unprepared, out.DrainBegan = int32(c.drain.moved), int32(c.drain.unprepared), stamp(c.drain.began)
	out.OverdueCalls = int64(st.OverdueCalls) - c.drain.overdue
	return out
}

// ListNodes shows this controller.
func (s *PoolsServer) ListNodes(ctx context.Context, _ *pb.ListNodesRequest) (*pb.ListNodesResponse, error) {
	if err := operatorOnly(ctx); err != nil {
		return nil, err
	}
	return &pb.ListNodesResponse{Nodes: []*pb.NodeStatus{s.c.nodeStatus()}}, nil
}

// DrainNode begins to drain this controller.
func (s *PoolsServer) DrainNode(ctx context.Context, req *pb.DrainNodeRequest) (*pb.NodeStatus, error) {
	if err := s.asked(ctx, req.GetNode()); err != nil {
		return nil, err
	}
	if s.c.others == nil {
		return nil, errs.New(errs.Invalid, "controller %s is the only one of its service: nobody could take its tenants; SIGTERM to the "+
			"process drains and stops it", s.c.cfg.ID)
	}
	s.c.keepDrain()
	s.c.Drain()
	s.c.startHandOver()
	return s.c.nodeStatus(), nil
}

// UndrainNode puts this controller back into service.
func (s *PoolsServer) UndrainNode(ctx context.Context, req *pb.UndrainNodeRequest) (*pb.NodeStatus, error) {
	if err := s.asked(ctx, req.GetNode()); err != nil {
		return nil, err
	}
	if err := s.c.Undrain(); err != nil {
		return nil, errs.Wrap(errs.Internal, "undrain", err, "controller %s cannot be put back into service: %s", s.c.cfg.ID, err)
	}
	return s.c.nodeStatus(), nil
}

func (s *PoolsServer) asked(ctx context.Context, node string) error {
	if err := operatorOnly(ctx); err != nil {
		return err
	}
	if node != s.c.cfg.ID {
		return errs.New(errs.NotFound, "there is no controller %.40q here; this one is %s", node, s.c.cfg.ID)
	}
	return nil
}
