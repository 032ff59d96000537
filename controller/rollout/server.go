package rollout

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/controller/catalog"
	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/internal/identity"
	pb "paddock/proto/paddock/v1"
)

// Server adds to a Pools API what concerns runtime images.
type Server struct {
	pb.PoolsServer
	store   store.Store
	view    *catalog.View
	runtime string
}

// NewServer returns pools with rollouts of a runtime.
func NewServer(pools pb.PoolsServer, s store.Store, view *catalog.View, runtime string) *Server {
	return &Server{PoolsServer: pools, store: s, view: view, runtime: runtime}
}

func operator(ctx context.Context) (identity.Identity, error) {
	who, ok := identity.From(ctx)
	if !ok || who.Role != identity.RoleOperator {
		return who, errs.New(errs.Denied, "an operator's key is needed for this")
	}
	return who, nil
}

// ListRuntimes implements paddock.v1.Pools.
func (s *Server) ListRuntimes(ctx context.Context, _ *pb.ListRuntimesRequest) (*pb.ListRuntimesResponse, error) {
	if _, err := operator(ctx); err != nil {
		return nil, err
	}
	rec, rev := &pb.RuntimeRecord{Name: s.runtime}, int64(0)
	if v, ok := s.view.Runtime(s.runtime); ok {
		rec, rev = v.Record, v.Revision
	}
	out, err := s.show(ctx, rec, rev)
	if err != nil {
		return nil, err
	}
	return &pb.ListRuntimesResponse{Runtimes: []*pb.Runtime{out}}, nil
}

func (s *Server) nodes(ctx context.Context) ([]*pb.NodeStatus, error) {
	r, err := s.ListNodes(ctx, &pb.ListNodesRequest{})
	return r.GetNodes(), err
}

func (s *Server) show(ctx context.Context, rec *pb.RuntimeRecord, rev int64) (*pb.Runtime, error) {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return nil, err
	}
	out := &pb.Runtime{Name: s.runtime, Image: rec.GetImage(), Former: rec.GetFormer(), Rollout: rec.GetRollout(), Revision: rev}
	named := []string{rec.GetImage()}
	if active(rec.GetRollout()) {
		named = append(named, rec.GetRollout().GetImage())
	}
	for _, n := range nodes {
		one := &pb.RuntimeNode{Node: n.GetId(), State: n.GetState(), Images: n.GetImages()}
		for _, digest := range named {
			if digest != "" && n.GetState() != "silent" && !present(n, digest) {
				one.Lacks = append(one.Lacks, digest)
			}
		}
		out.Nodes = append(out.Nodes, one)
	}
	return out, nil
}

func present(n *pb.NodeStatus, digest string) bool {
	return slices.ContainsFunc(n.GetImages(), func(s *pb.ImageStatus) bool { return s.GetDigest() == digest && s.GetPresent() })
}

// StartRollout implements paddock.v1.Pools.
func (s *Server) StartRollout(ctx context.Context, req *pb.StartRolloutRequest) (*pb.Runtime, error) {
	who, err := operator(ctx)
	if err != nil {
		return nil, err
	}
	if err := check(req); err != nil {
		return nil, err
	}
	nodes, err := s.nodes(ctx)
	if err != nil {
		return nil, err
	}
	image, err := complete(req.GetImage(), nodes)
	if err != nil {
		return nil, err
	}
	id := make([]byte, 8)
	rand.Read(id)
	return s.change(ctx, req.GetRuntime(), func(rec *pb.RuntimeRecord) error {
		return begin(rec, &pb.Rollout{
			Id: hex.EncodeToString(id), Image: image, CanaryPercent: req.GetCanaryPercent(), Gate: withDefaults(req.GetGate()), Drain: req.GetDrain(),
			Author: who.KeyID,
		}, nodes, time.Now())
	})
}

// begin makes r the record's rollout.
func begin(rec *pb.RuntimeRecord, r *pb.Rollout, nodes []*pb.NodeStatus, now time.Time) error {
	if active(rec.GetRollout()) {
		return errs.New(errs.Conflict, "image %.12s is being rolled out: wait for it, or roll it back first", rec.GetRollout().GetImage())
	}
	if rec.GetImage() == "" {
		rec.Image = inUse(nodes)
	}
	if rec.GetImage() == r.GetImage() {
		return errs.New(errs.Conflict, "containers are made of image %.12s already", r.GetImage())
	}
	if r.GetCanaryPercent() == 0 {
		r.CanaryPercent = DefaultCanaryPercent
	}
	r.From, r.State, r.Began = rec.GetImage(), Canary, timestamppb.New(now)
	rec.Rollout = r
	return nil
}

// back takes the rollout under way back, or goes one step back.
func back(rec *pb.RuntimeRecord, nodes []*pb.NodeStatus, by string, now time.Time) error {
	r, former := rec.GetRollout(), rec.GetFormer()
	switch {
	case active(r):
		rollBack(rec, "an operator took it back (key "+by+")", now)
		return nil
	case former == "" && (rec.GetImage() == "" || r.GetState() != Done || r.GetImage() != rec.GetImage()):
		return errs.New(errs.Conflict, "there is no former image of %s to go back to", rec.GetName())
	case former != "" && !slices.ContainsFunc(nodes, func(n *pb.NodeStatus) bool { return present(n, former) }):
		return errs.New(errs.Conflict, "no controller has the former image %.12s of %s any more: bring it back, or roll another one out",
			former, rec.GetName())
	}
	rec.Image, rec.Former, rec.Drain = former, rec.GetImage(), true // "" is each controller's own, as it was
	return nil
}

func check(req *pb.StartRolloutRequest) error {
	g := req.GetGate()
	switch {
	case req.GetCanaryPercent() < 0 || req.GetCanaryPercent() > 100:
		return errs.New(errs.Invalid, "canary_percent is %d: it must be from 1 to 100, or 0 for %d", req.GetCanaryPercent(), DefaultCanaryPercent)
	case g.GetMinCalls() < 0 || g.GetMaxStartFailures() < 0:
		return errs.New(errs.Invalid, "gate: min_calls and max_start_failures must not be negative")
	case !(g.GetMaxFailedPercent() >= 0 && g.GetMaxFailedPercent() <= 100 && g.GetMaxErrorPercent() >= 0 && g.GetMaxErrorPercent() <= 100):
		return errs.New(errs.Invalid, "gate: percentages must be from 0 to 100")
	case g.GetWatch() != nil && (g.GetWatch().CheckValid() != nil || g.GetWatch().AsDuration() <= 0):
		return errs.New(errs.Invalid, "gate: watch must be a time above 0")
	}
	return nil
}

// complete finds the one image that begins so on a controller that can make containers of it.
func complete(begin string, nodes []*pb.NodeStatus) (string, error) {
	found, problem := map[string]bool{}, ""
	for _, n := range nodes {
		for _, s := range n.GetImages() {
			if begin == "" || !strings.HasPrefix(s.GetDigest(), begin) {
				continue
			}
			if s.GetPresent() {
				found[s.GetDigest()] = true
			} else if s.GetProblem() != "" {
				problem = fmt.Sprintf("controller %s refuses image %.12s: %s", n.GetId(), s.GetDigest(), s.GetProblem())
			}
		}
	}
	switch len(found) {
	case 0:
		if problem != "" {
			return "", errs.New(errs.Conflict, "%s", problem)
		}
		return "", errs.New(errs.NotFound, "no controller has an image %.64q: build it there with 'paddock runtime build', or copy it; 'paddock "+
			"runtime ls' shows what there is", begin)
	case 1:
		for digest := range found {
			return digest, nil
		}
	}
	return "", errs.New(errs.Invalid, "%d images begin with %.64q: give more of the digest", len(found), begin)
}

// inUse is the image that all controllers make containers of, "" if they differ.
func inUse(nodes []*pb.NodeStatus) (digest string) {
	for _, n := range nodes {
		for _, s := range n.GetImages() {
			if s.GetPercent() < 100 {
				continue
			}
			if digest != "" && digest != s.GetDigest() {
				return ""
			}
			digest = s.GetDigest()
		}
	}
	return digest
}

// PauseRollout implements paddock.v1.Pools.
func (s *Server) PauseRollout(ctx context.Context, req *pb.PauseRolloutRequest) (*pb.Runtime, error) {
	return s.pause(ctx, req.GetRuntime(), true)
}

// ResumeRollout implements paddock.v1.Pools.
func (s *Server) ResumeRollout(ctx context.Context, req *pb.ResumeRolloutRequest) (*pb.Runtime, error) {
	return s.pause(ctx, req.GetRuntime(), false)
}

func (s *Server) pause(ctx context.Context, runtime string, paused bool) (*pb.Runtime, error) {
	return s.change(ctx, runtime, func(rec *pb.RuntimeRecord) error { return setPaused(rec, paused, time.Now()) })
}

func setPaused(rec *pb.RuntimeRecord, paused bool, now time.Time) error {
	if !active(rec.GetRollout()) {
		return errs.New(errs.Conflict, "nothing is being rolled out")
	}
	rec.Rollout.Paused = paused
	rec.Rollout.WatchedSince = timestamppb.New(now) // what went by meanwhile shows nothing
	return nil
}

// RollbackRuntime implements paddock.v1.Pools.
func (s *Server) RollbackRuntime(ctx context.Context, req *pb.RollbackRuntimeRequest) (*pb.Runtime, error) {
	who, err := operator(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := s.nodes(ctx)
	if err != nil {
		return nil, err
	}
	return s.change(ctx, req.GetRuntime(), func(rec *pb.RuntimeRecord) error { return back(rec, nodes, who.KeyID, time.Now()) })
}

// change writes the record as decide makes it, guarded by what it was decided on.
func (s *Server) change(ctx context.Context, runtime string, decide func(*pb.RuntimeRecord) error) (*pb.Runtime, error) {
	if _, err := operator(ctx); err != nil {
		return nil, err
	}
	if runtime != s.runtime {
		return nil, errs.New(errs.NotFound, "there is no runtime %.40q; there is %s", runtime, s.runtime)
	}
	key := store.Runtime(runtime)
	for {
		rec := &pb.RuntimeRecord{}
		kv, err := s.store.Get(ctx, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, away(err)
		}
		if err := proto.Unmarshal(kv.Value, rec); err != nil {
			return nil, errs.Wrap(errs.Internal, "read "+key, err, "the runtime's record cannot be read")
		}
		rec.Name = runtime
		if err := decide(rec); err != nil {
			return nil, err
		}
		value, err := proto.Marshal(rec)
		if err != nil {
			return nil, err
		}
		rev, err := s.store.Commit(ctx, store.Txn{
			Guards: []store.Guard{{Key: key, ModRevision: kv.ModRevision}}, Puts: []store.Put{{Key: key, Value: value}},
		})
		if errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, away(err)
		}
		_ = s.view.WaitRevision(ctx, rev)
		return s.show(ctx, rec, rev)
	}
}

func away(err error) error {
	e := errs.Wrap(errs.NoCapacity, "runtimes", err, "the store does not answer: calls go on, changes have to wait; try again")
	e.RetryAfter = time.Second
	return e
}
