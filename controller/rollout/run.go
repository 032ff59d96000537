package rollout

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/catalog"
	"paddock/controller/store"
	"paddock/internal/audit"
	"paddock/internal/identity"
	"paddock/internal/metrics"
	pb "paddock/proto/paddock/v1"
)

// lookEvery is how often controllers are asked while a rollout is under way.
const lookEvery = time.Second

// Options are what Run needs.
type Options struct {
	Store   store.Store
	Runtime string
	View    interface { // *catalog.View is one
		Runtime(name string) (*catalog.RuntimeView, bool)
	}
	// Nodes asks the controllers how they are; ctx carries an operator's identity.
	Nodes func(ctx context.Context) ([]*pb.NodeStatus, error)
	// Guard, if its key is set, must hold for every write: whoever has lost the role without knowing it decides nothing.
	Guard store.Guard
	// Audit and Metrics hear of every step; nil: nobody does.
	Audit   *audit.Log
	Metrics *metrics.Rollouts
	Logger  *slog.Logger
}

// runner is a Run.
type runner struct {
	Options
	// unsure is a step of which it is not known whether it was written, instead of the record of that revision.
	unsure  *pb.RuntimeRecord
	instead int64
}

// Run carries rollouts on until ctx ends. At one time one process does; of two that think so, guards let one write.
func Run(ctx context.Context, o Options) {
	r := runner{Options: o}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		v, ok := r.View.Runtime(r.Runtime)
		if !ok {
			continue
		}
		r.resolve(v)
		if !active(v.Record.GetRollout()) {
			continue
		}
		if err := r.look(ctx, v); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrConflict) {
			r.Logger.Warn("a rollout cannot go on", "runtime", r.Runtime, "err", err)
		}
	}
}

// resolve tells of a step that was written although its writer heard of an error.
func (r *runner) resolve(v *catalog.RuntimeView) {
	if r.unsure == nil || v.Revision == r.instead {
		return
	}
	if proto.Equal(v.Record, r.unsure) {
		r.told(v.Record)
	}
	r.unsure = nil
}

func (r *runner) look(ctx context.Context, v *catalog.RuntimeView) error {
	ctx, cancel := context.WithTimeout(ctx, store.CallTimeout)
	defer cancel()
	nodes, err := r.Nodes(identity.With(ctx, identity.Identity{KeyID: "rollout", Role: identity.RoleOperator}))
	if err != nil {
		return err
	}
	next := step(v.Record, nodes, time.Now())
	if next == nil {
		return nil
	}
	value, err := proto.Marshal(next)
	if err != nil {
		return err
	}
	key := store.Runtime(r.Runtime)
	txn := store.Txn{Guards: []store.Guard{{Key: key, ModRevision: v.Revision}}, Puts: []store.Put{{Key: key, Value: value}}}
	if r.Guard.Key != "" {
		txn.Guards = append(txn.Guards, r.Guard)
	}
	if _, err := r.Store.Commit(ctx, txn); err != nil {
		if !errors.Is(err, store.ErrConflict) {
			r.unsure, r.instead = next, v.Revision
		}
		return err
	}
	r.told(next)
	return nil
}

// told tells of a step that was taken.
func (r *runner) told(rec *pb.RuntimeRecord) {
	at, level := rec.GetRollout(), slog.LevelInfo
	if at.GetState() == RolledBack {
		level = slog.LevelError
	}
	r.Logger.Log(context.Background(), level, "rollout", "runtime", r.Runtime, "image", at.GetImage(), "state", at.GetState(), "controller", at.GetNode(),
		"moved", len(at.GetMoved()), "reason", at.GetReason())
	if r.Audit != nil {
		detail := map[string]string{"runtime": r.Runtime, "moved": strconv.Itoa(len(at.GetMoved()))}
		for name, text := range map[string]string{"controller": at.GetNode(), "reason": at.GetReason(), "rollout": at.GetId()} {
			if text != "" {
				detail[name] = text
			}
		}
		r.Audit.Note(audit.Event{Action: "rollout." + at.GetState(), Object: at.GetImage(), Result: audit.OK, Detail: detail})
	}
	if r.Metrics != nil && !active(at) {
		r.Metrics.Ended(at.GetState())
	}
}

// Standing is how the newest rollout stands, for metrics.
func Standing(v *catalog.RuntimeView, now time.Time) metrics.Rollout {
	if v == nil {
		return metrics.Rollout{}
	}
	r := v.Record.GetRollout()
	m := metrics.Rollout{State: r.GetState()}
	if active(r) && !r.GetPaused() {
		since := r.GetWatchedSince()
		if since == nil { // no controller has the image
			since = r.GetBegan()
		}
		m.Overdue = max(0, now.Sub(since.AsTime())-r.GetGate().GetWatch().AsDuration())
	}
	return m
}
