package etcdstore_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"paddock/controller/etcdstore"
	"paddock/controller/store"
	"paddock/controller/storetest"
)

func embedded(t *testing.T, o etcdstore.EmbedOptions) *etcdstore.Embedded {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "etcd")
	}
	s, err := etcdstore.Embed(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// The suite over a server in this process, by function calls.
func TestContractEmbedded(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		New:     func(t *testing.T) store.Store { return embedded(t, etcdstore.EmbedOptions{}) },
		Compact: func(t *testing.T, s store.Store, rev int64) { compact(t, s.(*etcdstore.Embedded).Store, rev) },
		Expire: func(t *testing.T, s store.Store, id store.LeaseID) {
			revoke(t, s.(*etcdstore.Embedded).Store, id)
		},
	})
}

// The suite over a server reached by gRPC.
func TestContractDialled(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		New:     func(t *testing.T) store.Store { s, _ := dialled(t); return s },
		Compact: func(t *testing.T, s store.Store, rev int64) { compact(t, s.(*etcdstore.Store), rev) },
		Expire:  func(t *testing.T, s store.Store, id store.LeaseID) { revoke(t, s.(*etcdstore.Store), id) },
	})
}

func dialled(t *testing.T) (*etcdstore.Store, *etcdstore.Embedded) {
	t.Helper()
	dir, err := os.MkdirTemp("", "etcd") // short: a socket's path has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	server := embedded(t, etcdstore.EmbedOptions{ClientSocket: socket})
	s, err := etcdstore.Dial(t.Context(), etcdstore.Options{Endpoints: []string{"unix://" + socket}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, server
}

func compact(t *testing.T, s *etcdstore.Store, rev int64) {
	t.Helper()
	if _, err := etcdstore.Client(s).Compact(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
}

func revoke(t *testing.T, s *etcdstore.Store, id store.LeaseID) {
	t.Helper()
	if err := etcdstore.Revoke(t.Context(), s, id); err != nil {
		t.Fatal(err)
	}
}

func put(ctx context.Context, s store.Store, key, value string) (int64, error) {
	return s.Commit(ctx, store.Txn{Puts: []store.Put{{Key: key, Value: []byte(value)}}})
}

// TestReopen: what was acknowledged is there in the next life, and history goes on.
func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	first := embedded(t, etcdstore.EmbedOptions{Dir: dir})
	rev, err := put(t.Context(), first, "/a", "kept")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := embedded(t, etcdstore.EmbedOptions{Dir: dir})
	kv, err := second.Get(t.Context(), "/a")
	if err != nil || string(kv.Value) != "kept" || kv.ModRevision != rev {
		t.Fatalf("%+v, %v", kv, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the data directory: %v, %v", info.Mode(), err)
	}
}

// TestEmbeddedListensNowhere: a server that nobody else uses has no way in.
func TestEmbeddedListensNowhere(t *testing.T) {
	embedded(t, etcdstore.EmbedOptions{})
	for _, addr := range []string{"127.0.0.1:2379", "127.0.0.1:2380"} {
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			_ = c.Close()
			t.Errorf("something listens on %s", addr)
		}
	}
}

// TestServerGone: a server that went away is unavailable within the deadline, to calls and to watches.
func TestServerGone(t *testing.T) {
	s, server := dialled(t)
	batches := s.Watch(t.Context(), "/", 0)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := put(t.Context(), s, "/a", ""); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Commit: %v", err)
	}
	if took := time.Since(began); took > 2*store.CallTimeout {
		t.Errorf("it took %v to say so", took)
	}
	for b := range batches {
		if b.Err != nil && !errors.Is(b.Err, store.ErrUnavailable) {
			t.Errorf("watch: %v", b.Err)
		}
	}
	if s.Stats().Failures == 0 {
		t.Error("failures were not counted")
	}
}

// TestDiskNearlyFull: writes are refused before etcd is in trouble; reads go on.
func TestDiskNearlyFull(t *testing.T) {
	if _, err := etcdstore.Embed(t.Context(), etcdstore.EmbedOptions{
		Dir: filepath.Join(t.TempDir(), "etcd"), MinFreeBytes: 1 << 60,
	}); !errors.Is(err, store.ErrNoSpace) {
		t.Fatalf("start without room: %v", err)
	}
}

func TestQuota(t *testing.T) {
	s := embedded(t, etcdstore.EmbedOptions{QuotaBytes: 4 << 20})
	value := make([]byte, store.MaxValueBytes)
	var err error
	for i := range 20 {
		if _, err = put(t.Context(), s, "/a/"+string(rune('a'+i)), string(value)); err != nil {
			break
		}
	}
	if !errors.Is(err, store.ErrNoSpace) {
		t.Fatalf("beyond the quota: %v", err)
	}
	if _, err := s.Get(t.Context(), "/a/a"); err != nil {
		t.Errorf("reading after that: %v", err)
	}
}

func TestServerPuts(t *testing.T) {
	s := embedded(t, etcdstore.EmbedOptions{})
	before, err := etcdstore.ServerPuts(prometheus.DefaultGatherer)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := put(t.Context(), s, "/a", ""); err != nil {
			t.Fatal(err)
		}
	}
	after, err := etcdstore.ServerPuts(prometheus.DefaultGatherer)
	if err != nil || after-before != 3 {
		t.Errorf("etcd counts %d puts, want 3 (%v)", after-before, err)
	}
}

// TestFault: what etcd would end the process for ends only the store.
func TestFault(t *testing.T) {
	s := embedded(t, etcdstore.EmbedOptions{})
	batches := s.Watch(t.Context(), "/", 0)
	etcdstore.BreakServer(s)
	<-s.Failed()
	if _, err := put(t.Context(), s, "/a", ""); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Commit: %v", err)
	}
	for b := range batches {
		if b.Err != nil && !errors.Is(b.Err, store.ErrUnavailable) {
			t.Errorf("watch: %v", b.Err)
		}
	}
	if s.Cause() == nil {
		t.Error("no cause")
	}
}

func BenchmarkPut(b *testing.B) {
	s, err := etcdstore.Embed(b.Context(), etcdstore.EmbedOptions{Dir: filepath.Join(b.TempDir(), "etcd")})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if _, err := put(b.Context(), s, "/a", "0123456789"); err != nil {
			b.Fatal(err)
		}
	}
}
