package catalog

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// change is a change of one tenant's functions and pipelines while it is decided: what was read, each record once and
// guarded, and what is to be written in one transaction. It is made anew for every try of Service.write.
type change struct {
	service   *Service
	ctx       context.Context // of the try that it belongs to
	tenant    tenant.ID
	wrapped   []byte // the tenant's data key
	policy    tenant.Policy
	usage     *pb.UsageRecord // nil until somebody needs it
	usageRev  int64
	counted   bool                       // the usage record is to be written
	functions map[string]*functionChange // by name
	order     []*functionChange
	pipelines []*PipelineView // nil until somebody needs them
	listed    bool
	txn       store.Txn
}

// begin reads the tenant, which must take changes.
func (s *Service) begin(ctx context.Context, t tenant.ID) (*change, error) {
	rec, rev, err := s.tenantFor(ctx, t)
	if err != nil {
		return nil, err
	}
	c := &change{
		service: s, ctx: ctx, tenant: t, wrapped: rec.GetWrappedKey(), policy: effectivePolicy(rec.GetPolicy(), s.maxima()),
		functions: map[string]*functionChange{},
	}
	c.guard(store.Tenant(t), rev)
	return c, nil
}

func (c *change) guard(key string, rev int64) {
	c.txn.Guards = append(c.txn.Guards, store.Guard{Key: key, ModRevision: rev})
}

func (c *change) put(key string, m proto.Message) error {
	p, err := put(key, m)
	c.txn.Puts = append(c.txn.Puts, p)
	return err
}

func (c *change) remove(key string) { c.txn.Deletes = append(c.txn.Deletes, key) }

// count reads the tenant's usage record, and has it written if something is counted. Whoever names functions in a pipeline
// writes it, and whoever takes away what a pipeline may name guards on it before he looks at the pipelines: so neither can
// miss the other.
func (c *change) count(writes bool) error {
	c.counted = c.counted || writes
	if c.usage != nil {
		return nil
	}
	var err error
	if c.usage, c.usageRev, err = c.service.usageFor(c.ctx, c.tenant); err == nil {
		c.guard(store.Usage(c.tenant), c.usageRev)
	}
	return err
}

// users returns all pipelines of the tenant: who may name what is to go away.
func (c *change) users() ([]*PipelineView, error) {
	if c.listed {
		return c.pipelines, nil
	}
	if err := c.count(false); err != nil {
		return nil, err
	}
	kvs, _, err := c.service.store.List(c.ctx, store.PipelinesOf(c.tenant))
	if err != nil {
		return nil, err
	}
	for _, kv := range kvs {
		_, parts := store.SplitKey(kv.Key)
		p, err := decodePipeline(parts[len(parts)-1], kv.Value, kv.ModRevision)
		if err != nil {
			return nil, unreadable(kv.Key, err)
		}
		c.pipelines = append(c.pipelines, p)
	}
	c.listed = true
	return c.pipelines, nil
}

// usersOf returns the names of the pipelines that name a version of a function by its number, or the function at all for
// number 0.
func (c *change) usersOf(function string, number int64) ([]string, error) {
	all, err := c.users()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range all {
		if p.names(function, number) {
			names = append(names, p.Name)
		}
	}
	return names, nil
}

func unreadable(key string, err error) *errs.Error {
	return errs.Wrap(errs.Internal, "read "+key, err, "a record cannot be read; the operator's log has the details")
}

// finish returns the transaction; an empty one if nothing changes.
func (c *change) finish() (store.Txn, error) {
	for _, f := range c.order {
		if f.written {
			if err := c.put(store.Function(c.tenant, f.rec.GetName()), f.rec); err != nil {
				return store.Txn{}, err
			}
		}
	}
	if c.counted {
		if err := c.put(store.Usage(c.tenant), c.usage); err != nil {
			return store.Txn{}, err
		}
	}
	if writes := len(c.txn.Puts) + len(c.txn.Deletes); writes > store.MaxTxnOps || len(c.txn.Guards) > store.MaxTxnOps {
		return store.Txn{}, errs.New(errs.Invalid, "this writes %d records and depends on %d, at most %d go in one step: deploy some of "+
			"the functions before, with keep_active", writes, len(c.txn.Guards), store.MaxTxnOps)
	}
	return c.txn, nil
}

// functionChange is a function while it is changed.
type functionChange struct {
	change   *change
	rec      *pb.FunctionRecord
	rev      int64          // 0: there is none yet
	versions []*VersionView // oldest first, as they will stand
	written  bool
}

// function reads a function with its versions; one that is not there has rev 0. expected, if it is not 0, is the revision that
// it must be as of.
func (c *change) function(name string, expected int64) (*functionChange, error) {
	if f, ok := c.functions[name]; ok {
		return f, nil
	}
	f := &functionChange{change: c, rec: &pb.FunctionRecord{Name: name}}
	var err error
	if f.rev, err = c.service.get(c.ctx, store.Function(c.tenant, name), f.rec); err != nil {
		return nil, err
	}
	if expected != 0 && f.rev != expected {
		return nil, errs.New(errs.Conflict, "function %s is as of revision %d, not %d: somebody has changed it; read it again", name,
			f.rev, expected)
	}
	if f.versions, err = c.service.versions(c.ctx, c.tenant, name); err != nil {
		return nil, err
	}
	c.guard(store.Function(c.tenant, name), f.rev)
	c.functions[name] = f
	c.order = append(c.order, f)
	return f, nil
}

// existing is function, for one that has to be there.
func (c *change) existing(name string, expected int64) (*functionChange, error) {
	if err := CheckFunctionName(name); err != nil {
		return nil, err
	}
	f, err := c.function(name, expected)
	if err == nil && f.rev == 0 {
		err = noFunction(c.tenant, name)
	}
	return f, err
}

func (f *functionChange) version(number int64) *VersionView {
	for _, v := range f.versions {
		if v.Number == number {
			return v
		}
	}
	return nil
}

// view shows the function as it stands after a write at revision rev, 0 if nothing was written.
func (f *functionChange) view(rev int64) *FunctionView {
	if !f.written {
		rev = f.rev
	}
	v := functionView(f.rec, rev)
	for _, one := range f.versions {
		v.put(one)
	}
	return v
}

// changeFunction changes one function that is there.
func (s *Service) changeFunction(ctx context.Context, op string, t tenant.ID, name string, expected int64,
	do func(*functionChange) error) (*FunctionView, error) {
	var f *functionChange
	rev, err := s.write(ctx, op, string(t), func() (store.Txn, error) {
		c, err := s.begin(ctx, t)
		if err != nil {
			return store.Txn{}, err
		}
		if f, err = c.existing(name, expected); err != nil {
			return store.Txn{}, err
		}
		if err := do(f); err != nil {
			return store.Txn{}, err
		}
		return c.finish()
	})
	if err != nil {
		return nil, err
	}
	return f.view(rev), nil
}

// addVersion puts in a new version, and takes the oldest out that nobody needs when there are too many.
func (f *functionChange) addVersion(v *VersionView) error {
	c := f.change
	f.rec.Newest++
	f.written = true
	v.Number, v.Created = f.rec.GetNewest(), time.Now()
	f.versions = append(f.versions, v)
	key := store.Version(c.tenant, f.rec.GetName(), v.Number)
	c.guard(key, 0)
	return c.put(key, &pb.VersionRecord{
		Number: v.Number, Hash: v.Hash, SizeBytes: v.SizeBytes, Kind: string(v.Kind), Runtime: v.Runtime,
		Author: v.Author, Note: v.Note, Created: asTimestamp(v.Created),
	})
}

// trim takes out the oldest versions until there are at most MaxVersions. What calls may get stays: the active version, the one
// that has a share, the one that a rollback would activate, those that pipelines name, and the newest that has proved itself.
func (f *functionChange) trim() error {
	surplus := len(f.versions) - MaxVersions
	if surplus <= 0 {
		return nil
	}
	users, err := f.change.users()
	if err != nil {
		return err
	}
	needed := f.needed()
	f.versions = slices.DeleteFunc(f.versions, func(v *VersionView) bool {
		if surplus == 0 || needed[v.Number] || slices.ContainsFunc(users, func(p *PipelineView) bool {
			return p.names(f.rec.GetName(), v.Number)
		}) {
			return false
		}
		surplus--
		f.drop(v.Number)
		return true
	})
	if surplus > 0 {
		e := errs.New(errs.Limited, "function %s has %d versions that are in use: that is the limit; take some of them out of pipelines",
			f.rec.GetName(), MaxVersions)
		e.Cause = "versions"
		return e
	}
	return nil
}

// needed are the versions that trim leaves, besides those that pipelines name.
func (f *functionChange) needed() map[int64]bool {
	keep := map[int64]bool{f.rec.GetActive(): true, f.rec.GetSplitVersion(): true, f.rec.GetNewest(): true}
	keep[lastFormer(f.rec)] = true
	for _, v := range slices.Backward(f.versions) {
		if v.Proven && v.Number < f.rec.GetActive() {
			keep[v.Number] = true
			break
		}
	}
	return keep
}

// drop takes a version out of the store and out of the history.
func (f *functionChange) drop(number int64) {
	f.change.remove(store.Version(f.change.tenant, f.rec.GetName(), number))
	f.rec.Former = slices.DeleteFunc(f.rec.Former, func(n int64) bool { return n == number })
	f.written = true
}

// activate makes a version the one that all unpinned calls get.
func (f *functionChange) activate(number int64) {
	r := f.rec
	if r.GetActive() == number && r.GetSplitVersion() == 0 {
		return
	}
	if old := r.GetActive(); old != number && old != 0 {
		r.Former = append(r.Former, old)
		if n := len(r.Former) - MaxFormer; n > 0 {
			r.Former = r.Former[n:]
		}
	}
	r.Active, r.SplitVersion, r.SplitPercent = number, 0, 0
	f.written = true
}

func (f *functionChange) noVersion(number int64) *errs.Error {
	return errs.New(errs.NotFound, "function %s has no version %d: `paddock functions versions %s` shows what there is", f.rec.GetName(), number,
		f.rec.GetName())
}
