package catalog

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

func encoded(t *testing.T, key string, m proto.Message) store.Put {
	t.Helper()
	p, err := put(key, m)
	must(t, err)
	return p
}

// TestResolvePipeline: pinned, following, split, disabled and last-good steps; what is missing has a typed error.
func TestResolvePipeline(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	for i := range 3 {
		w.deploy("acme", "f", fmt.Sprint("f", i))
		w.deploy("acme", "g", fmt.Sprint("g", i))
	}
	proven := &pb.VersionRecord{}
	_, err := w.service.get(t.Context(), store.Version("acme", "f", 1), proven)
	must(t, err)
	proven.Proven = true
	rev, err := w.store.Commit(t.Context(), store.Txn{Puts: []store.Put{
		encoded(t, store.Pipeline("acme", "login"), &pb.PipelineRecord{
			Name: "login", Kind: "rule", Timeout: durationpb.New(7 * time.Second), Steps: []*pb.PipelineStep{
				{Function: "f", Order: 1, OnFailure: "last_good", Timeout: durationpb.New(time.Second)},
				{Function: "gone", Order: 2, Disabled: true},
				{Function: "g@2", Order: 3, OnFailure: "skip"},
				{Function: "g", Order: 4},
			},
		}),
		encoded(t, store.Version("acme", "f", 1), proven),
		encoded(t, store.Function("acme", "g"), &pb.FunctionRecord{Name: "g", Active: 3, Newest: 3, SplitVersion: 1, SplitPercent: 25}),
	}})
	must(t, err)
	w.sees(rev)
	shares := map[int64]int{}
	for range 4000 {
		r, err := w.view.ResolvePipeline("acme", "login", rand.Uint64())
		must(t, err)
		f, off, pinned, split := r.Steps[0], r.Steps[1], r.Steps[2], r.Steps[3]
		if r.Revision != rev || r.Runtime != "node" || r.Pipeline.Timeout != 7*time.Second || r.Pipeline.Kind != call.KindRule ||
			f.Code.Number != 3 || f.LastGood == nil || f.LastGood.Number != 1 || f.Timeout != time.Second ||
			!off.Disabled || off.Code != nil || pinned.Code.Number != 2 || pinned.OnFailure != call.OnFailureSkip {
			t.Fatalf("%+v", r)
		}
		shares[split.Code.Number]++
		v, ok := w.view.Function("acme", "g", 0)
		if !ok || v.Number != 1 && v.Number != 3 {
			t.Fatalf("%+v", v)
		}
	}
	if n := shares[1]; n < 850 || n > 1150 || shares[1]+shares[3] != 4000 { // 25 % of 4000; five standard deviations are 137
		t.Errorf("shares %v", shares)
	}
	a, err := w.view.ResolvePipeline("acme", "login", 7)
	must(t, err)
	for range 10 {
		b, err := w.view.ResolvePipeline("acme", "login", 7)
		must(t, err)
		if a.Steps[3].Code != b.Steps[3].Code {
			t.Fatal("the same number gave another version")
		}
	}
	for name, steps := range map[string][]*pb.PipelineStep{
		"no function gone": {{Function: "f"}, {Function: "gone"}}, "no version 9": {{Function: "f@9"}},
	} {
		rev := w.raw(store.Pipeline("acme", "bad"), encoded(t, "k", &pb.PipelineRecord{Name: "bad", Kind: "rule", Steps: steps}).Value)
		w.sees(rev)
		_, err := w.view.ResolvePipeline("acme", "bad", 0)
		wantKind(t, err, errs.NotFound, "bad", "acme", "step", name)
	}
	_, err = w.view.ResolvePipeline("acme", "none", 0)
	wantKind(t, err, errs.NotFound, "none", "acme")
	_, err = w.view.ResolvePipeline("nobody", "none", 0)
	wantKind(t, err, errs.NotFound)
}

// TestPublicationIsSeenWhole: while functions and their pipeline change together, every call resolves to what was published
// together, and says at which revision.
func TestPublicationIsSeenWhole(t *testing.T) {
	s, _ := etcd(t)
	w := newWorld(t, s)
	w.tenant("acme", nil)
	const functions, rounds = 5, 60
	var at sync.Map // revision → version
	publish := func(n int64) int64 {
		txn := store.Txn{}
		p := &pb.PipelineRecord{Name: "login", Kind: "rule", Author: fmt.Sprint(n)}
		for i := range functions {
			name := fmt.Sprint("f", i)
			p.Steps = append(p.Steps, &pb.PipelineStep{Function: name})
			txn.Puts = append(txn.Puts,
				encoded(t, store.Function("acme", name), &pb.FunctionRecord{Name: name, Active: n, Newest: n}),
				encoded(t, store.Version("acme", name, n), &pb.VersionRecord{Number: n, Hash: hashCode([]byte("x")), Runtime: "node"}))
		}
		txn.Puts = append(txn.Puts, encoded(t, store.Pipeline("acme", "login"), p))
		rev, err := w.store.Commit(t.Context(), txn)
		must(t, err)
		at.Store(rev, n)
		return rev
	}
	w.sees(publish(1))
	var stop atomic.Bool
	var seen atomic.Int64
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for !stop.Load() {
				r, err := w.view.ResolvePipeline("acme", "login", 0)
				if err != nil {
					t.Error(err)
					return
				}
				for _, step := range r.Steps {
					if n := step.Code.Number; fmt.Sprint(n) != r.Pipeline.Author {
						t.Errorf("version %d in publication %s", n, r.Pipeline.Author)
						return
					}
				}
				if want, ok := at.Load(r.Revision); ok && fmt.Sprint(want) != r.Pipeline.Author {
					t.Errorf("revision %d is publication %v, got %s", r.Revision, want, r.Pipeline.Author)
					return
				}
				seen.Add(1)
			}
		})
	}
	last := int64(0)
	for n := int64(2); n <= rounds; n++ {
		last = publish(n)
	}
	w.sees(last)
	stop.Store(true)
	readers.Wait()
	if r, err := w.view.ResolvePipeline("acme", "login", 0); err != nil || r.Revision != last || seen.Load() == 0 {
		t.Errorf("%+v, %v, %d resolved", r, err, seen.Load())
	}
}

// TestAccessRecords: modes, rates that follow, keys by function; what nobody said is closed.
func TestAccessRecords(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.deploy("acme", "f", "x")
	a, ok := w.view.Access("acme", "f")
	if !ok || a.Mode != AccessKey || a.RatePerSecond != DefaultAccessRate || w.keyring.VerifyURLKey("acme", "f", a, "") {
		t.Errorf("%+v, %v", a, ok)
	}
	if _, ok := w.view.Access("acme", "none"); ok {
		t.Error("access to what is not there")
	}
	pepper := w.service.opts.Pepper
	rec := &pb.FunctionRecord{
		Name: "f", Active: 1, Newest: 1, Access: &pb.Access{Mode: "url_key", RatePerSecond: 3},
		UrlKeyMac: pepper.urlMAC("acme", "f", "open"),
	}
	w.sees(w.raw(store.Function("acme", "f"), encoded(t, "k", rec).Value))
	a, _ = w.view.Access("acme", "f")
	if a.Mode != AccessURLKey || a.RatePerSecond != 3 || a.RateBurst != 6 || !w.keyring.VerifyURLKey("acme", "f", a, "open") ||
		w.keyring.VerifyURLKey("acme", "f", a, "shut") || w.keyring.VerifyURLKey("acme", "g", a, "open") ||
		w.keyring.VerifyURLKey("other", "f", a, "open") {
		t.Errorf("%+v", a)
	}
	w.deploy("acme", "f", "y")
	if b, _ := w.view.Access("acme", "f"); a != b {
		t.Error("a deployment changed who may call")
	}
	rec.Access.Mode = "of the future"
	w.sees(w.raw(store.Function("acme", "f"), encoded(t, "k", rec).Value))
	if a, _ = w.view.Access("acme", "f"); a.Mode != AccessKey {
		t.Errorf("a mode of the future is %s", a.Mode)
	}
}

// TestHosts: one form of a name, whatever form is asked for.
func TestHosts(t *testing.T) {
	w := newWorld(t, mem(t))
	w.sees(w.raw(store.Host("xn--rgeln-kva.example.com"), encoded(t, "k", &pb.HostRecord{Tenant: "acme"}).Value))
	for _, host := range []string{
		"xn--rgeln-kva.example.com", "XN--RGELN-KVA.example.com:8443", "xn--rgeln-kva.Example.com.", "r\u00fcgeln.example.com",
	} {
		if got, ok := w.view.TenantOfHost(host); !ok || got != "acme" {
			t.Errorf("%s: %q, %v", host, got, ok)
		}
	}
	for _, host := range []string{"", ".", "example.com", "other.example.com", "[::1]:80", "127.0.0.1", "\xff", "a..b", ":80"} {
		if got, ok := w.view.TenantOfHost(host); ok {
			t.Errorf("%s: %q", host, got)
		}
	}
	rev, err := w.store.Commit(t.Context(), store.Txn{Deletes: []string{store.Host("xn--rgeln-kva.example.com")}})
	must(t, err)
	w.sees(rev)
	if _, ok := w.view.TenantOfHost("xn--rgeln-kva.example.com"); ok {
		t.Error("still there")
	}
	for _, bad := range []string{"", "a", "https://a.b", "a.b/c", "a_b.c", "1.2.3.4", "a.b:80", "-a.b", "a b.c", "*.a.b"} {
		if got, err := normalHost(bad); err == nil {
			t.Errorf("%q is %q", bad, got)
		}
	}
}
