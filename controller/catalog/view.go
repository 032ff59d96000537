package catalog

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"paddock/controller/store"
	"paddock/internal/sizedcache"
	"paddock/internal/tenant"
)

// Defaults of ViewOptions, and how hard the view tries.
const (
	DefaultReconcileEvery = 5 * time.Minute
	DefaultAuthStaleMax   = time.Hour
	DefaultCodeCacheBytes = 256 << 20
	retryFirst            = 50 * time.Millisecond
	retryMost             = 2 * time.Second // half as much more by chance: how long changes go unheard of once the store is back
	// reconcileShare is how much longer than it takes it is between two looks at everything: a large store must not be busy with
	// being listed.
	reconcileShare = 100
)

// ViewOptions say what a View follows.
type ViewOptions struct {
	Store store.Store
	Blobs *Blobs
	KEK   KEK
	// ReconcileEvery is how often everything is listed again, in case the watch missed something; more rarely where that takes
	// more than a hundredth of the time. 0 = the default.
	ReconcileEvery time.Duration
	// AuthStaleMax is the age from which keys fail closed. 0 = the default.
	AuthStaleMax time.Duration
	// ServingOnly leaves out what only routers need: keys, functions, pipelines, secrets. Tenants, controllers and what they hold
	// are a controller's business; of a million tenants the rest would be two gigabytes on every machine.
	ServingOnly bool
	// CodeCacheBytes bounds the decrypted code in memory. 0 = the default.
	CodeCacheBytes int64
	// Maxima bound what every tenant's policy says, also one that was stored when they were others. The zero value is
	// tenant.DefaultMaxima.
	Maxima Maxima
	Logger *slog.Logger
}

// View is the catalogue in memory. Lookups take no locks and never ask the store: while it is away they answer from what
// was last heard. Safe for concurrent use; Close ends it.
type View struct {
	opts ViewOptions
	log  *slog.Logger

	tenants   *table[tenant.ID, *TenantView]
	tenantIDs atomic.Pointer[func() []tenant.ID] // sorted, made once for who lists them; replaced when one comes or goes
	keys      *table[string, *keyEntry]
	snapshots *table[tenant.ID, *snapshot]
	hosts     *table[string, tenant.ID]
	policies  *policyPool
	serving   *fleetView
	secrets   *table[tenant.ID, *secretSet]
	opened    *sizedcache.Cache[functionKey, openedSet] // decrypted secrets
	code      *codeCache
	changes   *broadcaster

	base     time.Time // with monotonic reading
	heard    atomic.Int64
	revision atomic.Int64
	missed   atomic.Int64
	broken   atomic.Int64

	mu      sync.Mutex
	advance chan struct{} // closed and replaced when revision rises

	// Only the run goroutine:
	mods       map[string]int64 // ModRevision of every record held, or held out
	listing    time.Duration    // how long the last list took
	unreadable map[string]bool

	ready  chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
}

// NewView starts to follow the store and returns at once; Ready says when the first picture is there.
func NewView(o ViewOptions) (*View, error) {
	if o.ReconcileEvery == 0 {
		o.ReconcileEvery = DefaultReconcileEvery
	}
	if o.AuthStaleMax == 0 {
		o.AuthStaleMax = DefaultAuthStaleMax
	}
	if o.Maxima == (Maxima{}) {
		o.Maxima = tenant.DefaultMaxima()
	}
	if o.CodeCacheBytes == 0 {
		o.CodeCacheBytes = DefaultCodeCacheBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	seal, err := newSealer(o.KEK)
	if err != nil {
		return nil, err
	}
	v := newView(o)
	v.code = newCodeCache(o.Blobs, seal, o.CodeCacheBytes)
	ctx, cancel := context.WithCancel(context.Background())
	v.cancel = cancel
	go v.run(ctx)
	return v, nil
}

// newView returns a view that follows nothing.
func newView(o ViewOptions) *View {
	v := &View{
		opts: o, log: o.Logger,
		tenants: newTable[tenant.ID, *TenantView](), keys: newTable[string, *keyEntry](),
		snapshots: newTable[tenant.ID, *snapshot](), hosts: newTable[string, tenant.ID](), policies: newPolicyPool(), serving: newFleetView(),
		secrets: newTable[tenant.ID, *secretSet](),
		opened:  sizedcache.New[functionKey, openedSet](secretCacheBytes), changes: newBroadcaster(),
		base: time.Now(), advance: make(chan struct{}),
		mods: map[string]int64{}, unreadable: map[string]bool{},
		ready: make(chan struct{}), done: make(chan struct{}),
	}
	v.newTenantIDs()
	return v
}

// Ready is closed when everything has been seen once.
func (v *View) Ready() <-chan struct{} { return v.ready }

// Close stops following. Lookups go on answering.
func (v *View) Close() error {
	v.cancel()
	<-v.done
	return nil
}

// Tenant returns a tenant and whether there is one.
func (v *View) Tenant(id tenant.ID) (*TenantView, bool) { return v.tenants.get(id) }

// Key returns an API key's record and whether there is one, expired or not.
func (v *View) Key(id string) (*KeyView, bool) {
	e, ok := v.keys.get(id)
	if !ok {
		return nil, false
	}
	return &e.KeyView, true
}

// Tenants returns up to limit tenants in the order of their ids, after the id after.
func (v *View) Tenants(after tenant.ID, limit int) []*TenantView {
	ids := (*v.tenantIDs.Load())()
	i, found := slices.BinarySearch(ids, after)
	if found {
		i++
	}
	var all []*TenantView
	for _, id := range ids[i:] {
		if len(all) >= limit {
			break
		}
		if t, ok := v.tenants.get(id); ok {
			all = append(all, t)
		}
	}
	return all
}

// newTenantIDs has the tenants sorted again for the next who lists them: a page costs the same however many there are.
func (v *View) newTenantIDs() {
	sorted := sync.OnceValue(func() []tenant.ID {
		var ids []tenant.ID
		v.tenants.all(func(id tenant.ID, _ *TenantView) bool {
			ids = append(ids, id)
			return true
		})
		slices.Sort(ids)
		return ids
	})
	v.tenantIDs.Store(&sorted)
}

// keysOf returns the keys that want names, oldest first.
func (v *View) keysOf(want func(*keyEntry) bool) []*keyEntry {
	var all []*keyEntry
	v.keys.all(func(_ string, k *keyEntry) bool {
		if want(k) {
			all = append(all, k)
		}
		return true
	})
	slices.SortFunc(all, func(a, b *keyEntry) int {
		if c := a.created.Compare(b.created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all
}

// Source returns a tenant's code by hash, decrypted. Nobody may change the bytes. It may read a blob, never the store.
func (v *View) Source(ctx context.Context, t tenant.ID, hash string) ([]byte, error) {
	tv, ok := v.tenants.get(t)
	if !ok {
		return nil, noTenant(t)
	}
	return v.code.get(ctx, tv, hash)
}

// Subscribe returns a Subscription to what changes from now on.
func (v *View) Subscribe() *Subscription { return v.changes.subscribe() }

// Revision is the store's revision up to which the view has seen everything.
func (v *View) Revision() int64 { return v.revision.Load() }

// WaitRevision returns once the view has seen revision, or with ctx's error.
func (v *View) WaitRevision(ctx context.Context, revision int64) error {
	for {
		v.mu.Lock()
		advance := v.advance
		v.mu.Unlock()
		if v.revision.Load() >= revision {
			return nil
		}
		select {
		case <-advance:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Age is how long ago the store last showed that the view is up to date: about a second while the watch is live.
func (v *View) Age() time.Duration { return time.Since(v.base) - time.Duration(v.heard.Load()) }

// Stale says that keys must fail closed: a revoked one might still be here.
func (v *View) Stale() bool { return v.Age() > v.opts.AuthStaleMax }

// ViewStats is a snapshot of a View.
type ViewStats struct {
	Revision       int64
	Age            time.Duration
	Unreadable     int64 // records held out now because they cannot be read; alert on it
	Missed         int64 // changes that only a reconcile found; alert on it
	CodeCacheBytes int64
	CodeCacheItems int
	Tenants        int
	Keys           int
	Functions      int
	Pipelines      int
}

// Stats counts what is there; it walks over everything.
func (v *View) Stats() ViewStats {
	s := ViewStats{Revision: v.Revision(), Age: v.Age(), Unreadable: v.broken.Load(), Missed: v.missed.Load()}
	s.CodeCacheBytes, s.CodeCacheItems = v.code.size()
	v.tenants.all(func(tenant.ID, *TenantView) bool { s.Tenants++; return true })
	v.keys.all(func(string, *keyEntry) bool { s.Keys++; return true })
	v.snapshots.all(func(_ tenant.ID, one *snapshot) bool {
		s.Functions += len(one.functions)
		s.Pipelines += len(one.pipelines)
		return true
	})
	return s
}

// run lists everything and then follows the watch; whatever ends that, it lists again.
func (v *View) run(ctx context.Context) {
	defer close(v.done)
	retry := retryFirst
	for ctx.Err() == nil {
		rev, err := v.load(ctx)
		if err == nil {
			if retry != retryFirst {
				v.log.Info("catalogue: the store is back", "revision", rev)
			}
			retry = retryFirst
			err = v.follow(ctx, rev+1)
		}
		switch {
		case ctx.Err() != nil, err == nil: // over, or time to reconcile
			continue
		case errors.Is(err, store.ErrClosed):
			return
		case errors.Is(err, store.ErrCompacted):
			v.log.Info("catalogue: the watch fell behind the store's history; listing again")
			continue
		}
		level := slog.LevelDebug
		if retry == retryFirst { // once for each time that it goes away
			level = slog.LevelWarn
		}
		v.log.Log(ctx, level, "catalogue: the store is away; serving from memory", "err", err, "age", v.Age())
		select {
		case <-ctx.Done():
		case <-time.After(retry/2 + rand.N(retry)):
		}
		retry = min(2*retry, retryMost)
	}
}

// load takes the whole picture and returns its revision.
func (v *View) load(ctx context.Context) (int64, error) {
	began := time.Now()
	kvs, rev, err := v.opts.Store.List(ctx, store.Root)
	if err != nil {
		return 0, err
	}
	seen := v.revision.Load()
	if len(v.mods) == 0 {
		v.mods = make(map[string]int64, len(kvs))
	}
	a := v.newApply()
	held := 0
	for _, kv := range kvs {
		if a.put(kv.Key, kv.Value, kv.ModRevision) {
			held++
		}
	}
	if held < len(v.mods) { // what is held and was not listed is gone
		a.removeOthers(kvs, rev)
	}
	if missed := a.changedUpTo(seen); missed > 0 {
		v.missed.Add(int64(missed))
		v.log.Error("catalogue: the watch had missed changes", "changes", missed)
	}
	v.publish(a, rev)
	v.listing = time.Since(began)
	select {
	case <-v.ready:
	default:
		close(v.ready)
	}
	return rev, nil
}

// follow applies what the watch delivers until it ends, or until it is time to reconcile, which is no error.
func (v *View) follow(ctx context.Context, from int64) error {
	ctx, cancel := context.WithCancel(ctx)
	batches := v.opts.Store.Watch(ctx, store.Root, from)
	defer func() { // the watch ends with its context, and closes the channel
		cancel()
		for range batches {
		}
	}()
	every := max(v.opts.ReconcileEvery, reconcileShare*v.listing)
	reconcile := time.NewTimer(every*9/10 + rand.N(every/5))
	defer reconcile.Stop()
	for {
		select {
		case b, ok := <-batches:
			if !ok {
				return store.ErrUnavailable
			}
			if b.Err != nil {
				return b.Err
			}
			a := v.newApply()
			for _, e := range b.Events {
				if e.Deleted {
					a.remove(e.Key, e.ModRevision)
				} else {
					a.put(e.Key, e.Value, e.ModRevision)
				}
			}
			v.publish(a, b.Revision)
		case <-reconcile.C:
			return nil
		}
	}
}

// publish makes what was applied visible, then the revision, then tells those who wait.
func (v *View) publish(a *apply, rev int64) {
	notices := a.finish()
	v.heard.Store(int64(time.Since(v.base)))
	if rev > v.revision.Load() {
		v.revision.Store(rev)
		v.mu.Lock()
		close(v.advance)
		v.advance = make(chan struct{})
		v.mu.Unlock()
	}
	for _, c := range notices {
		if c.Kind == TenantRemoved {
			v.code.forget(c.Tenant)
			v.opened.Drop(func(k functionKey) bool { return k.tenant == c.Tenant })
		}
	}
	v.changes.send(notices)
}
