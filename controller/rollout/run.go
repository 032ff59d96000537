package rollout

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/catalog"
	"paddock/controller/store"
	"paddock/internal/identity"
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
	Guard  store.Guard
	Logger *slog.Logger
}

// Run carries rollouts on until ctx ends. At one time one process does; of two that think so, guards let one write.
func Run(ctx context.Context, o Options) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if v, ok := o.View.Runtime(o.Runtime); ok && active(v.Record.GetRollout()) {
			if err := o.look(ctx, v); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrConflict) {
				o.Logger.Warn("a rollout cannot go on", "runtime", o.Runtime, "err", err)
			}
		}
	}
}

func (o *Options) look(ctx context.Context, v *catalog.RuntimeView) error {
	ctx, cancel := context.WithTimeout(ctx, store.CallTimeout)
	defer cancel()
	nodes, err := o.Nodes(identity.With(ctx, identity.Identity{KeyID: "rollout", Role: identity.RoleOperator}))
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
	key := store.Runtime(o.Runtime)
	txn := store.Txn{Guards: []store.Guard{{Key: key, ModRevision: v.Revision}}, Puts: []store.Put{{Key: key, Value: value}}}
	if o.Guard.Key != "" {
		txn.Guards = append(txn.Guards, o.Guard)
	}
	if _, err := o.Store.Commit(ctx, txn); err != nil {
		return err
	}
	r, level := next.GetRollout(), slog.LevelInfo
	if r.GetState() == RolledBack {
		level = slog.LevelError
	}
	o.Logger.Log(ctx, level, "rollout", "runtime", o.Runtime, "image", r.GetImage(), "state", r.GetState(), "controller", r.GetNode(),
		"moved", len(r.GetMoved()), "reason", r.GetReason())
	return nil
}
