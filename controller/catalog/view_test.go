package catalog

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"paddock/controller/memstore"
	"paddock/controller/store"
	"paddock/internal/tenant"
	"paddock/internal/testenv"
	pb "paddock/proto/paddock/v1"
)

// lossy is a store whose watch can be made to lose events, or to hold them back.
type lossy struct {
	*memstore.Store
	mu   sync.Mutex
	lose bool
}

func (l *lossy) losing(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lose = on
}

func (l *lossy) Watch(ctx context.Context, prefix string, from int64) <-chan store.Batch {
	in := l.Store.Watch(ctx, prefix, from)
	out := make(chan store.Batch)
	go func() {
		defer close(out)
		for b := range in {
			l.mu.Lock()
			if l.lose {
				b.Events = nil
			}
			l.mu.Unlock()
			select {
			case out <- b:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

func tenantRecord(t *testing.T, id string, concurrency int32) []byte {
	t.Helper()
	b, err := proto.Marshal(&pb.TenantRecord{
		Id: id, State: "active", Policy: &pb.Policy{Concurrency: &concurrency}, WrappedKey: []byte("k"),
	})
	must(t, err)
	return b
}

func concurrency(v *View, id tenant.ID) int {
	if t, ok := v.Tenant(id); ok {
		return t.Policy.Concurrency
	}
	return 0
}

// TestUnreadableRecords: garbage and records of the future keep the last good copy and raise an alarm.
func TestUnreadableRecords(t *testing.T) {
	s := mem(t)
	w := newWorld(t, s)
	w.sees(w.raw(store.Tenant("acme"), tenantRecord(t, "acme", 7)))
	d := func() { w.tenant("ok", nil); w.deploy("ok", "f", "x") }
	d()
	future, err := proto.Marshal(&pb.TenantRecord{Id: "acme", State: "hibernating"})
	must(t, err)
	for name, value := range map[string][]byte{
		"garbage": []byte("\xff\xff\xff"), "another's": tenantRecord(t, "other", 9), "a state of the future": future,
	} {
		w.sees(w.raw(store.Tenant("acme"), value))
		if got := concurrency(w.view, "acme"); got != 7 {
			t.Errorf("%s: concurrency %d, want the last good copy's 7", name, got)
		}
		if n := w.view.Stats().Unreadable; n != 1 {
			t.Errorf("%s: %d alarms", name, n)
		}
	}
	if !strings.Contains(w.log.String(), store.Tenant("acme")) {
		t.Error("not logged")
	}
	// Garbage of every kind, and keys of no kind: nothing stops.
	for _, key := range []string{
		store.Key("k"), store.Function("ok", "f"), store.Version("ok", "f", 1), store.Version("ok", "f", 2), store.Root + "new/x",
		store.TenantsPrefix + "UPPER", store.FunctionsPrefix + "a/b/c", store.Root,
	} {
		w.raw(key, []byte("\xff\xff\xff"))
	}
	w.sees(w.raw(store.Tenant("next"), tenantRecord(t, "next", 5)))
	if v, ok := w.view.Function("ok", "f", 0); !ok || v.Hash != hashCode([]byte("x")) {
		t.Errorf("the function's last good copy: %+v, %v", v, ok)
	}
	w.sees(w.raw(store.Tenant("acme"), tenantRecord(t, "acme", 8)))
	if got := concurrency(w.view, "acme"); got != 8 {
		t.Errorf("mended: %d", got)
	}
	if n := w.view.Stats().Unreadable; n != 5 {
		t.Errorf("%d alarms stand, want 5", n)
	}
	// A process that starts now does without.
	fresh := openWorld(t, s, w.dir)
	if concurrency(fresh.view, "acme") != 8 || fresh.view.Stats().Unreadable != 5 {
		t.Errorf("%+v", fresh.view.Stats())
	}
}

// TestDisconnect: while the store is away lookups answer, the age grows; afterwards everything that happened is there.
func TestDisconnect(t *testing.T) {
	s := mem(t)
	w := newWorld(t, s)
	w.sees(w.raw(store.Tenant("acme"), tenantRecord(t, "acme", 7)))
	w.sees(w.raw(store.Tenant("gone"), tenantRecord(t, "gone", 7)))
	s.SetAway(true)
	for range 1000 {
		if concurrency(w.view, "acme") != 7 {
			t.Fatal("lost while the store is away")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := w.view.WaitRevision(ctx, w.view.Revision()+1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	for w.view.Age() < 100*time.Millisecond {
		time.Sleep(time.Millisecond)
	}
	s.SetAway(false)
	w.raw(store.Tenant("acme"), tenantRecord(t, "acme", 9))
	rev, err := s.Commit(t.Context(), store.Txn{Deletes: []string{store.Tenant("gone")}})
	must(t, err)
	w.sees(rev)
	if concurrency(w.view, "acme") != 9 {
		t.Error("a change after the return is not seen")
	}
	if _, ok := w.view.Tenant("gone"); ok {
		t.Error("a delete after the return is not seen")
	}
	if w.view.Stats().Missed != 0 {
		t.Errorf("%+v", w.view.Stats())
	}
}

// TestCompaction: a view that fell behind what the store remembers lists again and misses nothing.
func TestCompaction(t *testing.T) {
	s := mem(t)
	w := newWorld(t, s)
	w.sees(w.raw(store.Tenant("gone"), tenantRecord(t, "gone", 1)))
	must(t, w.view.Close())
	// A second view stands for one that starts over from nothing; the first one's loop is driven by hand from where it was.
	from := w.view.Revision() + 1
	_, err := s.Commit(t.Context(), store.Txn{Deletes: []string{store.Tenant("gone")}})
	must(t, err)
	rev := w.raw(store.Tenant("acme"), tenantRecord(t, "acme", 7))
	s.Compact(rev)
	if err := w.view.follow(t.Context(), from); !errors.Is(err, store.ErrCompacted) {
		t.Fatalf("%v, want compacted", err)
	}
	got, err := w.view.load(t.Context())
	if err != nil || got != rev {
		t.Fatalf("%d, %v", got, err)
	}
	if _, ok := w.view.Tenant("gone"); ok || concurrency(w.view, "acme") != 7 {
		t.Error("the list did not bring what the watch could not")
	}
}

// TestReconcile: what a watch loses without a word is found, and counted.
func TestReconcile(t *testing.T) {
	s := &lossy{Store: mem(t)}
	w := newWorld(t, s, func(v *ViewOptions, _ *Options) { v.ReconcileEvery = 1500 * time.Millisecond })
	w.sees(w.raw(store.Tenant("acme"), tenantRecord(t, "acme", 7)))
	s.losing(true)
	rev := w.raw(store.Tenant("acme"), tenantRecord(t, "acme", 9))
	w.sees(rev) // the watch says that it delivered it
	s.losing(false)
	deadline := time.Now().Add(20 * time.Second)
	for concurrency(w.view, "acme") != 9 {
		if time.Now().After(deadline) {
			t.Fatal("never found")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if w.view.Stats().Missed == 0 {
		t.Error("not counted")
	}
}

func TestSubscriptions(t *testing.T) {
	w := newWorld(t, mem(t))
	sub := w.view.Subscribe()
	quiet := w.view.Subscribe()
	quiet.Close()
	take := func() []Change {
		t.Helper()
		select {
		case <-sub.C():
		case <-time.After(20 * time.Second):
			t.Fatal("nothing came")
		}
		return sub.Take()
	}
	w.tenant("acme", nil)
	if c := take(); !slices.Equal(c, []Change{{TenantChanged, "acme", ""}}) {
		t.Errorf("%+v", c)
	}
	for range 50 { // late takers get each change once
		_, err := w.service.SuspendTenant(t.Context(), "acme", false)
		must(t, err)
		_, err = w.service.SuspendTenant(t.Context(), "acme", true)
		must(t, err)
	}
	w.deploy("acme", "f", "x")
	c := take()
	for len(c) < 2 { // a write is seen a moment before it is told
		c = append(c, take()...)
	}
	if !slices.Equal(c, []Change{{TenantChanged, "acme", ""}, {FunctionChanged, "acme", "f"}}) {
		t.Errorf("%+v", c)
	}
	before, _ := w.view.Tenant("acme")
	kv, err := w.store.Get(t.Context(), store.Tenant("acme"))
	must(t, err)
	w.sees(w.raw(store.Tenant("acme"), kv.Value)) // a write that changes nothing
	after, _ := w.view.Tenant("acme")
	if before.Policy != after.Policy || len(sub.Take()) != 0 {
		t.Error("a write that changed nothing was told")
	}
	_, err = w.service.DeleteTenant(t.Context(), "acme")
	must(t, err)
	w.sees(w.view.Revision())
	got := take()
	want := []Change{{TenantChanged, "acme", ""}, {FunctionRemoved, "acme", "f"}, {TenantRemoved, "acme", ""}}
	for len(got) < len(want) {
		got = append(got, take()...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if len(quiet.Take()) != 0 {
		t.Error("a closed subscription was told")
	}
}

// TestViewAgainstStore: whatever is written, in whatever order, two views end up with what a fresh one lists.
func TestViewAgainstStore(t *testing.T) {
	s, _ := etcd(t)
	w := newWorld(t, s)
	other := openWorld(t, s, w.dir)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			id := tenant.ID(fmt.Sprint("t", i))
			for round := range 8 {
				if _, err := w.service.CreateTenant(t.Context(), id, nil); err != nil {
					t.Error(err)
					return
				}
				for f := range 3 {
					if _, err := other.service.DeployFunction(t.Context(), id, Deployment{
						Name: fmt.Sprint("f", f), Source: fmt.Append(nil, "code ", round, f),
					}); err != nil {
						t.Error(err)
					}
				}
				_, _ = other.service.DeleteFunction(t.Context(), id, "f1")
				if round%2 == 0 {
					if _, err := other.service.DeleteTenant(t.Context(), id); err != nil {
						t.Error(err)
					}
				} else {
					if _, err := w.service.DeleteTenant(t.Context(), id); err != nil {
						t.Error(err)
					}
				}
			}
			_, _ = w.service.CreateTenant(t.Context(), id, nil)
			_, _ = w.service.DeployFunction(t.Context(), id, Deployment{Name: "last", Source: []byte("x")})
		})
	}
	all.Wait()
	_, rev, err := s.List(t.Context(), store.Root)
	must(t, err)
	w.sees(rev)
	other.sees(rev)
	fresh := openWorld(t, s, w.dir)
	dump := func(v *View) string {
		var b strings.Builder
		for _, tv := range v.Tenants("", 100) {
			fmt.Fprintln(&b, tv.ID, tv.State, tv.Revision, *tv.Policy)
			for _, f := range v.Functions(tv.ID, "", 100) {
				fmt.Fprintln(&b, f.Name, f.Active, f.Newest, f.Revision, len(f.versions))
			}
		}
		st := v.Stats()
		fmt.Fprintln(&b, st.Tenants, st.Functions, st.Keys, st.Missed, st.Unreadable)
		return b.String()
	}
	want := dump(fresh.view)
	if a, b := dump(w.view), dump(other.view); a != want || b != want || !strings.Contains(want, "last") {
		t.Errorf("the views differ:\n%s\n%s\n%s", a, b, want)
	}
}

// TestCodeCacheIsBounded: in bytes, dropping what was used longest ago.
func TestCodeCacheIsBounded(t *testing.T) {
	w := newWorld(t, mem(t), func(v *ViewOptions, _ *Options) { v.CodeCacheBytes = 10_000 })
	w.tenant("acme", nil)
	for i := range 30 {
		d := w.deploy("acme", fmt.Sprint("f", i), strings.Repeat(fmt.Sprint(i%10), 1000))
		src, err := w.view.Source(t.Context(), "acme", d.Version.Hash)
		if err != nil || len(src) != 1000 {
			t.Fatalf("%d bytes, %v", len(src), err)
		}
	}
	if st := w.view.Stats(); st.CodeCacheBytes > 10_000 || st.CodeCacheItems != 10 {
		t.Errorf("%+v", st)
	}
	big := w.deploy("acme", "big", strings.Repeat("b", 20_000))
	if src, err := w.view.Source(t.Context(), "acme", big.Version.Hash); err != nil || len(src) != 20_000 {
		t.Errorf("larger than the cache: %d bytes, %v", len(src), err)
	}
	_, err := w.service.DeleteTenant(t.Context(), "acme")
	must(t, err)
	// what is derived from a record goes just after the record itself
	testenv.Await(t, "what is derived goes after the tenant", func() bool {
		st := w.view.Stats()
		return st.CodeCacheBytes == 0 && st.CodeCacheItems == 0
	})
}

func BenchmarkLookup(b *testing.B) {
	s := memstore.New()
	defer s.Close()
	const tenants, functions = 1000, 10
	hash := hashCode([]byte("x"))
	for i := range tenants {
		id := fmt.Sprintf("t%d", i)
		rec, _ := proto.Marshal(&pb.TenantRecord{Id: id, State: "active", WrappedKey: make([]byte, 100)})
		puts := []store.Put{{Key: store.Tenant(tenant.ID(id)), Value: rec}}
		for f := range functions {
			name := fmt.Sprintf("f%d", f)
			fr, _ := proto.Marshal(&pb.FunctionRecord{Name: name, Active: 1, Newest: 1})
			vr, _ := proto.Marshal(&pb.VersionRecord{Number: 1, Hash: hash, Kind: "auto", Runtime: "node"})
			puts = append(puts, store.Put{Key: store.Function(tenant.ID(id), name), Value: fr},
				store.Put{Key: store.Version(tenant.ID(id), name, 1), Value: vr})
		}
		if _, err := s.Commit(b.Context(), store.Txn{Puts: puts}); err != nil {
			b.Fatal(err)
		}
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	blobs, err := OpenBlobs(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	v, err := NewView(ViewOptions{Store: s, Blobs: blobs})
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	<-v.Ready()
	perFunction := float64(heap()-before) / (tenants * functions)
	b.Run("Tenant", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := v.Tenant("t500"); !ok {
				b.Fatal()
			}
		}
		b.ReportMetric(perFunction, "heapB/function")
	})
	b.Run("Function", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := v.Function("t500", "f5", 0); !ok {
				b.Fatal()
			}
		}
	})
}
