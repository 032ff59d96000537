package fleet

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"paddock/internal/errs"
	"paddock/internal/nodewire"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
	"paddock/router/remote"
)

// each asks every controller at a time and returns the answers in the order of their ids, and who gave none. An error is what the first
// one by id said instead.
func each[T any](f *Fleet, ctx context.Context, ask func(context.Context, *remote.Node) (T, error)) (answers []T, missing []string, err error) {
	ms := f.members.Load().all
	all, failed := make([]T, len(ms)), make([]error, len(ms))
	var over sync.WaitGroup
	for i, m := range ms {
		over.Go(func() { all[i], failed[i] = ask(nodewire.Act(ctx), m.node) })
	}
	over.Wait()
	for i := range ms {
		switch {
		case failed[i] == nil:
			answers = append(answers, all[i])
		case silent(failed[i]):
			missing = append(missing, ms[i].id)
		case err == nil:
			err = failed[i]
		}
	}
	return answers, missing, err
}

// look is each for questions that are answered at once: a controller has no longer than lookTimeout.
func look[T any](f *Fleet, ctx context.Context, ask func(context.Context, *remote.Node) (T, error)) (answers []T, missing []string, err error) {
	return each(f, ctx, func(ctx context.Context, n *remote.Node) (T, error) {
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		return ask(ctx, n)
	})
}

// lookTimeout is how long one controller is waited for that is only asked what it has.
const lookTimeout = 2 * time.Second

// silent says that a controller did not answer.
func silent(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// named says of which controller an error is.
func named(id string, err error) error {
	if silent(err) {
		e := errs.Wrap(errs.NoCapacity, "controller "+id, err, "controller %s does not answer", id)
		e.Cause = "controller"
		return e
	}
	return err
}

// RemoveTenant ends what a tenant has on every controller that answers. One that does not hears of it from the store when it is
// back, and does the same by itself.
func (f *Fleet) RemoveTenant(ctx context.Context, t tenant.ID) (containers int, err error) {
	answers, missing, err := each(f, ctx, func(ctx context.Context, n *remote.Node) (int, error) {
		res, err := n.Client().RemoveTenant(ctx, &pb.RemoveTenantRequest{Tenant: string(t)})
		return int(res.GetContainers()), err
	})
	for _, n := range answers {
		containers += n
	}
	if len(missing) > 0 && ctx.Err() != nil {
		return containers, errs.Wrap(errs.Timeout, "remove tenant", ctx.Err(), "controllers %s have not answered yet: try again", strings.Join(missing, ", "))
	}
	if len(missing) > 0 {
		f.log.Warn("controllers did not answer when a tenant was removed; they will hear of it from the store", "tenant", t, "controllers", missing)
	}
	return containers, err
}

// Pools is the Pools API over all controllers.
type Pools struct {
	pb.UnimplementedPoolsServer
	fleet *Fleet
}

// Pools returns the server of the Pools API.
func (f *Fleet) Pools() *Pools { return &Pools{fleet: f} }

func poolsOf(n *remote.Node) pb.PoolsClient { return pb.NewPoolsClient(n.Conn()) }

// ListContainers lists those of all controllers that answer, and says who does not.
func (p *Pools) ListContainers(ctx context.Context, req *pb.ListContainersRequest) (*pb.ListContainersResponse, error) {
	answers, missing, err := look(p.fleet, ctx, func(ctx context.Context, n *remote.Node) (*pb.ListContainersResponse, error) {
		return poolsOf(n).ListContainers(ctx, req)
	})
	if err != nil {
		return nil, err
	}
	out := &pb.ListContainersResponse{Missing: missing}
	for _, a := range answers {
		out.Containers = append(out.Containers, a.GetContainers()...)
	}
	return out, nil
}

// GetPool sums up what the controllers say that answer.
func (p *Pools) GetPool(ctx context.Context, req *pb.GetPoolRequest) (*pb.PoolStatus, error) {
	answers, missing, err := look(p.fleet, ctx, func(ctx context.Context, n *remote.Node) (*pb.PoolStatus, error) {
		return poolsOf(n).GetPool(ctx, req)
	})
	if err != nil {
		return nil, err
	}
	out := sum(answers)
	out.Missing = missing
	return out, nil
}

func sum(all []*pb.PoolStatus) *pb.PoolStatus {
	out := &pb.PoolStatus{RecycledTotal: map[string]int64{}}
	var ids, engines, isolations, images []string
	for _, s := range all {
		ids, engines = append(ids, s.GetController()), append(engines, s.GetEngine())
		isolations, images = append(isolations, s.GetIsolation()), append(images, s.GetImage())
		out.Creating += s.GetCreating()
		out.Ready += s.GetReady()
		out.Assigned += s.GetAssigned()
		out.Frozen += s.GetFrozen()
		out.Draining += s.GetDraining()
		out.Waiting += s.GetWaiting()
		out.MinReady += s.GetMinReady()
		out.MaxReady += s.GetMaxReady()
		out.MaxContainers += s.GetMaxContainers()
		out.MemoryBudgetBytes += s.GetMemoryBudgetBytes()
		out.MemoryReservedBytes += s.GetMemoryReservedBytes()
		out.CreatedTotal += s.GetCreatedTotal()
		out.LeakedTotal += s.GetLeakedTotal()
		for cause, n := range s.GetRecycledTotal() {
			out.RecycledTotal[cause] += n
		}
	}
	out.Controller, out.Engine, out.Isolation, out.Image = joined(ids), joined(engines), joined(isolations), joined(images)
	return out
}

// joined is the different ones of a list.
func joined(all []string) string {
	slices.Sort(all)
	text := ""
	for i, s := range slices.Compact(all) {
		if i > 0 {
			text += ", "
		}
		text += s
	}
	return text
}

// Explain is of all controllers that answer, or of the one that has the container.
func (p *Pools) Explain(ctx context.Context, req *pb.ExplainRequest) (*pb.ExplainResponse, error) {
	answers, missing, err := look(p.fleet, ctx, func(ctx context.Context, n *remote.Node) (*pb.ExplainResponse, error) {
		return poolsOf(n).Explain(ctx, req)
	})
	out := &pb.ExplainResponse{Missing: missing}
	for _, a := range answers {
		out.Containers = append(out.Containers, a.GetContainers()...)
	}
	if err != nil && (req.GetContainer() == "" || len(out.GetContainers()) == 0) {
		return nil, err
	}
	return out, nil
}

// Resize is refused: each controller's bounds are its machine's.
func (p *Pools) Resize(context.Context, *pb.ResizeRequest) (*pb.PoolStatus, error) {
	return nil, errs.New(errs.Invalid, "bounds are each controller's own: set them where it is started (--min-ready, --max-containers)")
}

// Drain recycles what is named, wherever it is. It fails where a controller does not answer that may have some of it.
func (p *Pools) Drain(ctx context.Context, req *pb.DrainRequest) (*pb.DrainResponse, error) {
	answers, missing, err := each(p.fleet, ctx, func(ctx context.Context, n *remote.Node) (*pb.DrainResponse, error) {
		return poolsOf(n).Drain(ctx, req)
	})
	if len(missing) > 0 {
		e := errs.New(errs.NoCapacity, "controllers do not answer: %s", strings.Join(missing, ", "))
		e.Cause = "controller"
		err = e
	}
	out := &pb.DrainResponse{}
	for _, a := range answers {
		out.Containers += a.GetContainers()
	}
	if err != nil && (req.GetContainer() == "" || out.GetContainers() == 0) {
		return nil, err
	}
	return out, nil
}

// ListNodes shows every controller; of one that does not answer only what the store says.
func (p *Pools) ListNodes(ctx context.Context, req *pb.ListNodesRequest) (*pb.ListNodesResponse, error) {
	ms := p.fleet.members.Load().all
	all := make([]*pb.NodeStatus, len(ms))
	var over sync.WaitGroup
	for i, m := range ms {
		over.Go(func() {
			one, cancel := context.WithTimeout(nodewire.Act(ctx), lookTimeout)
			defer cancel()
			if res, err := poolsOf(m.node).ListNodes(one, req); err == nil && len(res.GetNodes()) == 1 {
				all[i] = res.GetNodes()[0]
				return
			}
			c := m.record.Load()
			all[i] = &pb.NodeStatus{Id: m.id, Address: m.address, Region: c.Region, Version: c.Version, TrustClass: c.TrustClass,
				Isolation: string(c.Isolation), State: "silent"}
		})
	}
	over.Wait()
	return &pb.ListNodesResponse{Nodes: all}, nil
}

// DrainNode is refused where nobody else is left: a drain would end in waiting calls.
func (p *Pools) DrainNode(ctx context.Context, req *pb.DrainNodeRequest) (*pb.NodeStatus, error) {
	m, err := p.node(req.GetNode())
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(p.fleet.members.Load().all, func(o *member) bool { return o != m && o.usable() && !o.drains() }) {
		return nil, errs.New(errs.Conflict, "controller %s is the last one that takes calls: put another one into service first", m.id)
	}
	st, err := poolsOf(m.node).DrainNode(nodewire.Act(ctx), req)
	if err != nil {
		return nil, named(m.id, err)
	}
	m.draining.Store(true)
	return st, nil
}

// UndrainNode puts a controller back into service.
func (p *Pools) UndrainNode(ctx context.Context, req *pb.UndrainNodeRequest) (*pb.NodeStatus, error) {
	m, err := p.node(req.GetNode())
	if err != nil {
		return nil, err
	}
	st, err := poolsOf(m.node).UndrainNode(nodewire.Act(ctx), req)
	return st, named(m.id, err)
}

func (p *Pools) node(id string) (*member, error) {
	if m := p.fleet.members.Load().byID[id]; m != nil {
		return m, nil
	}
	return nil, errs.New(errs.NotFound, "there is no controller %.40q: 'paddock pool nodes' lists them", id)
}

// Recycle goes through the controllers one after the other, so that only one at a time makes successors.
func (p *Pools) Recycle(req *pb.RecycleRequest, stream grpc.ServerStreamingServer[pb.RecycleProgress]) error {
	var total, done int32
	for _, m := range p.fleet.members.Load().all {
		one, err := poolsOf(m.node).Recycle(nodewire.Act(stream.Context()), req)
		if err != nil {
			return named(m.id, err)
		}
		var last *pb.RecycleProgress
		for {
			step, err := one.Recv()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					return named(m.id, err)
				}
				break
			}
			last = step
			step.Total, step.Done = total+step.GetTotal(), done+step.GetDone()
			if err := stream.Send(step); err != nil {
				return err
			}
		}
		if last != nil {
			total, done = last.GetTotal(), last.GetDone()
		}
	}
	return nil
}
