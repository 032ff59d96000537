package catalog

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// versionsOf describes what the view has of a function: active, share, what a rollback gives, numbers.
func versionsOf(t *testing.T, w *world, name string) string {
	t.Helper()
	f, ok := w.view.lookup("acme", name)
	if !ok {
		return "none"
	}
	var all []int64
	for _, v := range slices.Backward(f.Versions()) {
		all = append(all, v.Number)
	}
	return fmt.Sprint(f.Active, " ", f.SplitVersion, ":", f.SplitPercent, " back ", f.Previous, " ", all)
}

// TestActivate: versions come and go, by one write each, which says its revision.
func TestActivate(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	for i := range 3 {
		w.deploy("acme", "f", fmt.Sprint("v", i+1))
	}
	is := func(want string) {
		t.Helper()
		if got := versionsOf(t, w, "f"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	activate := func(number int64, percent int32) {
		t.Helper()
		f, err := w.service.ActivateVersion(t.Context(), "acme", "f", number, percent, 0)
		must(t, err)
		if seen, _ := w.view.lookup("acme", "f"); seen.Revision != f.Revision || seen.Previous != f.Previous {
			t.Errorf("it answered %+v, and the view has %+v", f, seen)
		}
	}
	back := func() {
		t.Helper()
		_, err := w.service.RollbackFunction(t.Context(), "acme", "f", 0)
		must(t, err)
	}
	is("3 0:0 back 2 [1 2 3]")
	activate(1, 100)
	is("1 0:0 back 3 [1 2 3]")
	back()
	is("3 0:0 back 2 [1 2 3]")
	back()
	is("2 0:0 back 1 [1 2 3]")
	activate(3, 10)
	is("2 3:10 back 2 [1 2 3]")
	f, _ := w.view.lookup("acme", "f")
	if f.Percent(2) != 90 || f.Percent(3) != 10 || f.Percent(1) != 0 {
		t.Errorf("shares %d, %d, %d", f.Percent(2), f.Percent(3), f.Percent(1))
	}
	activate(3, 40)
	is("2 3:40 back 2 [1 2 3]")
	back() // ends the share
	is("2 0:0 back 1 [1 2 3]")
	activate(3, 99)
	activate(3, 0)
	is("3 0:0 back 2 [1 2 3]")
	activate(3, 0)
	is("3 0:0 back 2 [1 2 3]")
	w.deploy("acme", "f", "v1")
	is("1 0:0 back 3 [1 2 3]")
	_, err := w.service.DeleteVersion(t.Context(), "acme", "f", 3)
	must(t, err)
	is("1 0:0 back 2 [1 2]")
	back()
	is("2 0:0 back 1 [1 2]")
	back()
	is("1 0:0 back 0 [1 2]")
	_, err = w.service.RollbackFunction(t.Context(), "acme", "f", 0)
	wantKind(t, err, errs.Conflict, "f", "before 1")
	d, err := w.service.DeployFunction(t.Context(), "acme", Deployment{Name: "f", Source: []byte("v4"), KeepActive: true})
	if err != nil || d.Version.Number != 4 || d.Function.Active != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	is("1 0:0 back 0 [1 2 4]")
	d, err = w.service.DeployFunction(t.Context(), "acme", Deployment{Name: "new", Source: []byte("v"), KeepActive: true})
	if err != nil || d.Function.Active != 1 {
		t.Errorf("a first version: %+v, %v", d, err)
	}
	for range MaxFormer + 4 {
		activate(1, 0)
		activate(2, 0)
	}
	rec := &pb.FunctionRecord{}
	if _, err := w.service.get(t.Context(), store.Function("acme", "f"), rec); err != nil || len(rec.GetFormer()) != MaxFormer {
		t.Errorf("a history of %d, %v", len(rec.GetFormer()), err)
	}
}

// TestBadActivations: each says what is wrong with what.
func TestBadActivations(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.deploy("acme", "f", "a")
	d := w.deploy("acme", "f", "b")
	s, ctx := w.service, t.Context()
	activate := func(name string, number int64, percent int32, expected int64) error {
		_, err := s.ActivateVersion(ctx, "acme", name, number, percent, expected)
		return err
	}
	wantKind(t, activate("none", 1, 0, 0), errs.NotFound, "none")
	wantKind(t, activate("f", 9, 0, 0), errs.NotFound, "f", "version 9")
	wantKind(t, activate("f", 0, 0, 0), errs.Invalid, "version 0")
	wantKind(t, activate("f", -1, 0, 0), errs.Invalid, "version -1")
	wantKind(t, activate("f", 1, 101, 0), errs.Invalid, "101", "100")
	wantKind(t, activate("f", 1, -1, 0), errs.Invalid, "-1")
	wantKind(t, activate("f", 2, 50, 0), errs.Invalid, "version 2", "active")
	wantKind(t, activate("f", 1, 0, d.Revision-1), errs.Conflict, fmt.Sprint(d.Revision), fmt.Sprint(d.Revision-1))
	must(t, activate("f", 1, 30, d.Revision))
	_, err := s.RollbackFunction(ctx, "acme", "f", d.Revision)
	wantKind(t, err, errs.Conflict, "f")
	_, err = s.DeployFunction(ctx, "acme", Deployment{Name: "f", Source: []byte("c"), ExpectedRevision: d.Revision})
	wantKind(t, err, errs.Conflict, "f")
	_, err = s.DeployFunction(ctx, "acme", Deployment{Name: "none", Source: []byte("c"), ExpectedRevision: 5})
	wantKind(t, err, errs.Conflict, "none")
	_, err = s.DeleteVersion(ctx, "acme", "f", 2)
	wantKind(t, err, errs.Conflict, "version 2", "active")
	_, err = s.DeleteVersion(ctx, "acme", "f", 1)
	wantKind(t, err, errs.Conflict, "version 1", "30 %")
	_, err = s.DeleteVersion(ctx, "acme", "f", 7)
	wantKind(t, err, errs.NotFound, "version 7")
	_, err = s.DeleteVersion(ctx, "nobody", "f", 7)
	wantKind(t, err, errs.NotFound, "nobody")
	if got := versionsOf(t, w, "f"); got != "2 1:30 back 2 [1 2]" {
		t.Errorf("after refusals: %s", got)
	}
}

// TestTrimKeepsWhatIsUsed: of many versions the oldest go, but none that a call may get.
func TestTrimKeepsWhatIsUsed(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	for i := range 6 {
		w.deploy("acme", "f", fmt.Sprint("v", i+1))
	}
	ctx, s := t.Context(), w.service
	must(t, s.MarkProven(ctx, "acme", "f", 2, hashCode([]byte("v2"))))
	_, err := s.PutPipeline(ctx, "acme", NewPipeline{Name: "p", Steps: []*pb.PipelineStep{{Function: "f@4", Disabled: true}}})
	must(t, err)
	_, err = s.ActivateVersion(ctx, "acme", "f", 3, 0, 0)
	must(t, err)
	_, err = s.ActivateVersion(ctx, "acme", "f", 5, 0, 0)
	must(t, err)
	_, err = s.ActivateVersion(ctx, "acme", "f", 1, 7, 0)
	must(t, err)
	for i := range MaxVersions + 20 {
		_, err := s.DeployFunction(ctx, "acme", Deployment{Name: "f", Source: fmt.Append(nil, "more", i), KeepActive: true})
		must(t, err)
	}
	f, _ := w.view.lookup("acme", "f")
	var first []int64
	for _, v := range slices.Backward(f.Versions()) {
		first = append(first, v.Number)
	}
	// 1 has a share, 2 has proved itself, 3 was active before 5, 4 is named.
	if len(first) != MaxVersions || !slices.Equal(first[:6], []int64{1, 2, 3, 4, 5, 32}) {
		t.Errorf("%d versions: %v …", len(first), first[:6])
	}
	// All in use: refused, with the number.
	steps := []*pb.PipelineStep{}
	for _, n := range first {
		steps = append(steps, &pb.PipelineStep{Function: fmt.Sprint("f@", n)})
	}
	_, err = s.PutPipeline(ctx, "acme", NewPipeline{Name: "p", Steps: steps})
	must(t, err)
	_, err = s.DeployFunction(ctx, "acme", Deployment{Name: "f", Source: []byte("one too many")})
	wantKind(t, err, errs.Limited, "f", fmt.Sprint(MaxVersions))
}

// TestProven: said once, it stays, and it is what last_good finds.
func TestProven(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	for i := range 4 {
		w.deploy("acme", "f", fmt.Sprint("v", i+1))
	}
	ctx, s := t.Context(), w.service
	for _, n := range []int64{1, 3, 4} {
		must(t, s.MarkProven(ctx, "acme", "f", n, hashCode(fmt.Append(nil, "v", n))))
	}
	rev := w.view.Revision()
	must(t, s.MarkProven(ctx, "acme", "f", 1, hashCode([]byte("v1"))))
	must(t, s.MarkProven(ctx, "acme", "f", 9, hashCode([]byte("v9"))))
	must(t, s.MarkProven(ctx, "acme", "f", 2, hashCode([]byte("v1")))) // another function's number 2, deleted meanwhile
	must(t, s.MarkProven(ctx, "acme", "none", 1, ""))
	must(t, s.MarkProven(ctx, "nobody", "f", 1, ""))
	if _, now, err := w.store.List(ctx, store.Root); err != nil || now != rev {
		t.Errorf("what was known was written again: revision %d, %d", rev, now)
	}
	_, err := s.PutPipeline(ctx, "acme", NewPipeline{Name: "p", Steps: []*pb.PipelineStep{
		{Function: "f", OnFailure: "last_good"}, {Function: "f@3", OnFailure: "last_good"}, {Function: "f@1", OnFailure: "last_good"},
		{Function: "f", OnFailure: "skip"},
	}})
	must(t, err)
	r, err := w.view.ResolvePipeline("acme", "p", 0)
	must(t, err)
	for i, want := range []int64{3, 1, 0, 0} { // of 4, of 3, of 1, not asked for
		got := int64(0)
		if v := r.Steps[i].LastGood; v != nil {
			got = v.Number
		}
		if got != want {
			t.Errorf("step %d falls back on %d, want %d", i, got, want)
		}
	}
}

func TestDiff(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.deploy("acme", "f", "one\ntwo\nthree\n")
	w.deploy("acme", "f", "one\n2\nthree")
	_, err := w.service.ActivateVersion(t.Context(), "acme", "f", 1, 0, 0)
	must(t, err)
	want := "--- f@1\n+++ f@2\n@@ -1,3 +1,3 @@\n one\n-two\n-three\n+2\n+three\n\\ No newline at end of file\n"
	for _, c := range [][2]int64{{1, 2}, {0, 0}, {0, 2}, {1, 0}} {
		d, err := w.service.DiffVersions(t.Context(), "acme", "f", c[0], c[1])
		must(t, err)
		if d.Unified != want || d.From != 1 || d.To != 2 {
			t.Errorf("%v: %+v", c, d)
		}
	}
	d, err := w.service.DiffVersions(t.Context(), "acme", "f", 2, 2)
	if err != nil || d.Unified != "" {
		t.Errorf("%+v, %v", d, err)
	}
	_, err = w.service.DiffVersions(t.Context(), "acme", "f", 2, 3)
	wantKind(t, err, errs.NotFound, "version 3")
	_, err = w.service.DiffVersions(t.Context(), "acme", "none", 2, 3)
	wantKind(t, err, errs.NotFound, "none")
	// A million lines without one in common take no time that matters: the effort is bounded.
	a := w.deploy("acme", "big", strings.Repeat("a\n", 250_000))
	b := w.deploy("acme", "big", strings.Repeat("b\n", 250_000))
	d, err = w.service.DiffVersions(t.Context(), "acme", "big", a.Version.Number, b.Version.Number)
	if err != nil || strings.Count(d.Unified, "\n-a") != 250_000 {
		t.Errorf("%d bytes, %v", len(d.Unified), err)
	}
}

// TestUploadsAtOnce: of many uploads of one name from two processes each is a version of its own, whole, and one is active.
func TestUploadsAtOnce(t *testing.T) {
	shared, _ := etcd(t)
	w := newWorld(t, shared)
	other := openWorld(t, shared, w.dir)
	w.tenant("acme", nil)
	const uploads = 100
	var all sync.WaitGroup
	for i := range uploads {
		all.Go(func() {
			svc := w.service
			if i%2 == 1 {
				svc = other.service
			}
			d, err := svc.DeployFunction(t.Context(), "acme", Deployment{Name: "f", Source: fmt.Append(nil, "upload ", i)})
			if err != nil {
				t.Errorf("upload %d: %v", i, err)
				return
			}
			if src, err := w.view.Source(t.Context(), "acme", d.Version.Hash); err != nil || string(src) != fmt.Sprint("upload ", i) {
				t.Errorf("upload %d is %q, %v", i, src, err)
			}
		})
	}
	all.Wait()
	_, rev, err := shared.List(t.Context(), store.Root)
	must(t, err)
	w.sees(rev)
	f, ok := w.view.lookup("acme", "f")
	if !ok {
		t.Fatal("no function")
	}
	hashes := map[string]bool{}
	for i, v := range f.Versions() {
		hashes[v.Hash] = true
		if v.Number != int64(uploads-i) {
			t.Errorf("version %d at place %d", v.Number, i)
		}
	}
	if len(hashes) != uploads || f.Active < 1 || f.Active > uploads || f.Newest != uploads {
		t.Errorf("%d versions, active %d, newest %d", len(hashes), f.Active, f.Newest)
	}
}

// TestCompileAtUpload: what does not compile is not stored; what could not be asked about is not either; what is known is not
// asked about again.
func TestCompileAtUpload(t *testing.T) {
	var asked []string
	var fail error
	w := newWorld(t, mem(t), func(_ *ViewOptions, o *Options) {
		o.Compile = func(_ context.Context, t tenant.ID, p *tenant.Policy, runtime string, code []call.Code) error {
			for _, c := range code {
				asked = append(asked, fmt.Sprint(t, " ", runtime, " ", c.Name, " ", string(c.Source), " ", p.SourceBytes))
			}
			return fail
		}
	})
	w.tenant("acme", nil)
	w.deploy("acme", "f", "a")
	w.deploy("acme", "f", "a")
	if want := []string{"acme node f.js a 1048576"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q", asked)
	}
	rev := w.view.Revision()
	fail = &errs.Error{Kind: errs.LoadError, Message: "f.js does not compile", Thrown: &errs.Thrown{Line: 3, Column: 7}}
	_, err := w.service.DeployFunction(t.Context(), "acme", Deployment{Name: "f", Source: []byte("b")})
	wantKind(t, err, errs.LoadError, "f.js")
	if e := errs.From(err); e.Thrown == nil || e.Thrown.Line != 3 {
		t.Errorf("%+v", e)
	}
	_, err = w.service.PublishPipeline(t.Context(), "acme", NewPipeline{Name: "p", Steps: []*pb.PipelineStep{{Function: "g"}}},
		[]Deployment{{Name: "g", Source: []byte("b")}})
	wantKind(t, err, errs.LoadError)
	fail = errs.New(errs.NoCapacity, "no sandbox")
	_, err = w.service.DeployFunction(t.Context(), "acme", Deployment{Name: "f", Source: []byte("b")})
	wantKind(t, err, errs.NoCapacity)
	w.deploy("acme", "f", "a") // known
	_, err = w.service.DeployFunction(t.Context(), "nobody", Deployment{Name: "f", Source: []byte("b")})
	wantKind(t, err, errs.NotFound, "nobody")
	if w.view.Revision() != rev || versionsOf(t, w, "f") != "1 0:0 back 0 [1]" {
		t.Error("something was stored")
	}
}

// TestUpdateFunction: who may call, the key that is shown once, and what is out of bounds.
func TestUpdateFunction(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", &pb.Policy{RatePerSecond: ptr(50.0)})
	w.deploy("acme", "f", "x")
	ctx, s := t.Context(), NewServer(w.service)
	admin := as(t, identity.RoleDeploy, "acme")
	open := func(key string) bool {
		a, ok := w.view.Access("acme", "f")
		return ok && w.keyring.VerifyURLKey("acme", "f", a, key)
	}
	first, err := s.UpdateFunction(admin, &pb.UpdateFunctionRequest{Name: "f", Access: &pb.Access{Mode: "url_key", RatePerSecond: 4}})
	must(t, err)
	if key := first.GetUrlKey(); len(key) != 47 || !strings.HasPrefix(key, "pdu_") || !open(key) || open(key[:46]) || open("") {
		t.Errorf("%+v", first)
	}
	if a := first.GetFunction().GetAccess(); a.GetRatePerSecond() != 4 || a.GetRateBurst() != 8 || a.GetMode() != "url_key" {
		t.Errorf("%+v", a)
	}
	same, err := s.UpdateFunction(admin, &pb.UpdateFunctionRequest{Name: "f", Access: &pb.Access{Mode: "url_key", RatePerSecond: 5}})
	must(t, err)
	if same.GetUrlKey() != "" || !open(first.GetUrlKey()) {
		t.Error("a change of the rate changed the key")
	}
	second, err := s.UpdateFunction(admin, &pb.UpdateFunctionRequest{Name: "f", NewUrlKey: true})
	must(t, err)
	if open(first.GetUrlKey()) || !open(second.GetUrlKey()) {
		t.Error("the old key works, or the new one does not")
	}
	kv, err := w.store.Get(ctx, store.Function("acme", "f"))
	if err != nil || strings.Contains(string(kv.Value), second.GetUrlKey()[4:]) {
		t.Error("the key is in the store")
	}
	_, err = s.UpdateFunction(admin, &pb.UpdateFunctionRequest{Name: "f", Access: &pb.Access{Mode: "public"}})
	must(t, err)
	if a, _ := w.view.Access("acme", "f"); a.Mode != AccessPublic || open(second.GetUrlKey()) {
		t.Errorf("%+v", a)
	}
	for _, c := range []struct {
		access *pb.Access
		newKey bool
		says   []string
	}{
		{&pb.Access{Mode: "everyone"}, false, []string{"everyone", "url_key"}},
		{&pb.Access{Mode: "public"}, true, []string{"f", "public", "url_key"}},
		{nil, true, []string{"public"}},
		{&pb.Access{Mode: "public", RatePerSecond: 51}, false, []string{"51", "50"}},
		{&pb.Access{Mode: "public", RatePerSecond: -1}, false, []string{"-1"}},
		{&pb.Access{Mode: "public", RatePerSecond: math.NaN()}, false, []string{"NaN"}},
		{&pb.Access{Mode: "public", RateBurst: 101}, false, []string{"101", "100"}},
		{&pb.Access{Mode: "public", RateBurst: -1}, false, []string{"-1"}},
	} {
		_, err := s.UpdateFunction(admin, &pb.UpdateFunctionRequest{Name: "f", Access: c.access, NewUrlKey: c.newKey})
		wantKind(t, err, errs.Invalid, c.says...)
	}
	_, err = s.UpdateFunction(admin, &pb.UpdateFunctionRequest{Name: "none"})
	wantKind(t, err, errs.NotFound, "none")
}

// TestHostsOfTenants: a name is one tenant's, in whatever form it is said, and free again when that is gone.
func TestHostsOfTenants(t *testing.T) {
	w := newWorld(t, mem(t))
	s, ctx := w.service, t.Context()
	hosts := func(names ...string) *pb.Policy { return &pb.Policy{Hosts: &pb.Hosts{Hosts: names}} }
	w.tenant("acme", hosts("A.example.com", "a.example.com.", "b.example.com"))
	w.tenant("other", nil)
	owner := func(host string, want tenant.ID) {
		t.Helper()
		if got, _ := w.view.TenantOfHost(host); got != want {
			t.Errorf("%s is %q's, want %q", host, got, want)
		}
	}
	owner("a.example.com", "acme")
	owner("b.example.com", "acme")
	_, err := s.UpdateTenant(ctx, "other", hosts("c.example.com", "B.EXAMPLE.com"))
	wantKind(t, err, errs.Conflict, "b.example.com", "acme")
	_, err = s.CreateTenant(ctx, "third", hosts("b.example.com"))
	wantKind(t, err, errs.Conflict, "b.example.com", "acme")
	owner("c.example.com", "")
	if _, ok := w.view.Tenant("third"); ok {
		t.Error("a refused tenant is there")
	}
	_, err = s.UpdateTenant(ctx, "acme", &pb.Policy{Concurrency: ptr[int32](3)})
	must(t, err)
	owner("b.example.com", "acme")
	v, err := s.UpdateTenant(ctx, "acme", hosts("a.example.com"))
	must(t, err)
	if !slices.Equal(v.Policy.Hosts, []string{"a.example.com"}) {
		t.Errorf("%v", v.Policy.Hosts)
	}
	_, err = s.UpdateTenant(ctx, "other", hosts("b.example.com"))
	must(t, err)
	owner("b.example.com", "other")
	_, err = s.UpdateTenant(ctx, "acme", hosts("no host"))
	wantKind(t, err, errs.Invalid, "no host")
	many := make([]string, MaxHosts+1)
	for i := range many {
		many[i] = fmt.Sprintf("h%d.example.com", i)
	}
	_, err = s.UpdateTenant(ctx, "acme", hosts(many...))
	wantKind(t, err, errs.Invalid, "33", "32")
	_, err = s.UpdateTenant(ctx, "acme", hosts(many[1:]...))
	must(t, err)
	_, err = s.UpdateTenant(ctx, "acme", hosts(append(many[2:], many[0])...))
	must(t, err)
	_, err = s.DeleteTenant(ctx, "acme")
	must(t, err)
	w.sees(w.view.Revision())
	if kvs, _, err := w.store.List(ctx, store.HostsPrefix); err != nil || len(kvs) != 1 {
		t.Errorf("%d names, %v", len(kvs), err)
	}
	_, err = s.UpdateTenant(ctx, "other", hosts("h5.example.com", "b.example.com"))
	must(t, err)
	owner("h5.example.com", "other")
}

// TestHostRace: of two tenants that ask for one name at once one gets it.
func TestHostRace(t *testing.T) {
	s, _ := etcd(t)
	w := newWorld(t, s)
	w.tenant("a", nil)
	w.tenant("b", nil)
	for round := range 10 {
		host := fmt.Sprintf("h%d.example.com", round)
		var all sync.WaitGroup
		errors := make([]error, 2)
		for i, id := range []tenant.ID{"a", "b"} {
			all.Go(func() {
				_, errors[i] = w.service.UpdateTenant(t.Context(), id, &pb.Policy{Hosts: &pb.Hosts{Hosts: []string{host}}})
			})
		}
		all.Wait()
		if (errors[0] == nil) == (errors[1] == nil) {
			t.Errorf("round %d: %v, %v", round, errors[0], errors[1])
		}
	}
}
