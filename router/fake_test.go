package router

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// fakeCatalogue is a catalogue in a map. Tokens are "ID.SECRET".
type fakeCatalogue struct {
	mu         sync.Mutex
	tenants    map[tenant.ID]*catalog.TenantView
	keys       map[string]*catalog.KeyView
	functions  map[string]*catalog.VersionView      // "tenant/name"
	secrets    map[string]*catalog.Secrets          // "tenant/function"
	secretsNow func() *catalog.Secrets              // every function's, as they are then; nil: secrets
	pipelines  map[string]*catalog.ResolvedPipeline // "tenant/name"
	revision   int64
	access     map[string]*catalog.AccessView // "tenant/function"
	urlKeys    map[string]string              // "tenant/function"
	hosts      map[string]tenant.ID
	stale      atomic.Bool
	matches    atomic.Int64
	urlChecks  atomic.Int64 // of URL keys
}

func (c *fakeCatalogue) Tenant(id tenant.ID) (*catalog.TenantView, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.tenants[id]
	return t, ok
}

func (c *fakeCatalogue) Key(id string) (*catalog.KeyView, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.keys[id]
	return k, ok
}

func (c *fakeCatalogue) Function(t tenant.ID, name string, version int64) (*catalog.VersionView, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.functions[string(t)+"/"+name]
	return f, ok && (version == 0 || version == f.Number)
}

func (c *fakeCatalogue) Access(t tenant.ID, function string) (*catalog.AccessView, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ref := string(t) + "/" + function
	if _, ok := c.functions[ref]; !ok {
		return nil, false
	}
	if a := c.access[ref]; a != nil {
		return a, true
	}
	return &catalog.AccessView{Mode: catalog.AccessKey, RatePerSecond: 1, RateBurst: 1}, true
}

func (c *fakeCatalogue) TenantOfHost(host string) (tenant.ID, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.hosts[host]
	return t, ok
}

func (c *fakeCatalogue) VerifyURLKey(t tenant.ID, function string, a *catalog.AccessView, key string) bool {
	c.urlChecks.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	want, ok := c.urlKeys[string(t)+"/"+function]
	return a != nil && ok && key == want
}

func (c *fakeCatalogue) LooksLikeKey(text string) bool { return strings.Contains(text, ".secret-") }

// addPublic adds a function of acme's that is called without a key, "" for the URL's key: nobody needs one.
func (c *fakeCatalogue) addPublic(name, urlKey string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &catalog.AccessView{Mode: catalog.AccessPublic, RatePerSecond: 1000, RateBurst: 1000}
	if urlKey != "" {
		a.Mode, c.urlKeys["acme/"+name] = catalog.AccessURLKey, urlKey
	}
	c.access["acme/"+name] = a
	c.functions["acme/"+name] = &catalog.VersionView{Number: 3, Hash: strings.Repeat("ef", 32), Kind: call.KindAuto, Runtime: "node"}
}

func (c *fakeCatalogue) ResolvePipeline(t tenant.ID, name string, _ uint64) (*catalog.ResolvedPipeline, error) {
	if p, ok := c.pipelines[string(t)+"/"+name]; ok {
		return p, nil
	}
	return nil, errs.New(errs.NotFound, "tenant %s has no pipeline %q", t, name)
}

func (c *fakeCatalogue) ResolveDraft(t tenant.ID, p *catalog.PipelineView, given []*catalog.VersionView, _ uint64) (*catalog.ResolvedPipeline, error) {
	r := &catalog.ResolvedPipeline{Pipeline: p, Runtime: "node", Revision: 42}
	for i := range p.Steps {
		s := catalog.ResolvedStep{PipelineStep: &p.Steps[i], Code: given[i]}
		if p.Steps[i].Disabled {
			s.Code = nil
		} else if s.Code == nil {
			f, ok := c.Function(t, p.Steps[i].Function, p.Steps[i].Version)
			if !ok {
				return nil, errs.New(errs.NotFound, "no function %s", p.Steps[i].Function)
			}
			s.Code = f
		}
		r.Steps = append(r.Steps, s)
	}
	return r, nil
}

func (c *fakeCatalogue) Source(context.Context, tenant.ID, string) ([]byte, error) {
	return []byte("module.exports = (input) => input"), nil
}

func (c *fakeCatalogue) Secrets(_ context.Context, t tenant.ID, function string) (*catalog.Secrets, error) {
	if c.secretsNow != nil {
		return c.secretsNow(), nil
	}
	if c.secrets == nil {
		return nil, nil
	}
	return c.secrets[string(t)+"/"+function], nil
}

func (c *fakeCatalogue) WaitRevision(ctx context.Context, revision int64) error {
	if revision <= c.revision {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (c *fakeCatalogue) Stale() bool { return c.stale.Load() }

func (c *fakeCatalogue) Age() time.Duration { return time.Second }

func (c *fakeCatalogue) Parse(token string) (string, string, bool) { return strings.Cut(token, ".") }

func (c *fakeCatalogue) Verify(k *catalog.KeyView, secret string) bool {
	c.matches.Add(1)
	sum := sha256.Sum256([]byte(secret))
	return bytes.Equal(k.MAC, sum[:])
}

func (c *fakeCatalogue) addKey(id string, t tenant.ID, role identity.Role, expires time.Time) {
	sum := sha256.Sum256([]byte("secret-" + id))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys[id] = &catalog.KeyView{ID: id, Tenant: t, Role: role, Expires: expires, MAC: sum[:]}
}

func (c *fakeCatalogue) addTenant(id tenant.ID, change func(*tenant.Policy)) {
	p := tenant.DefaultPolicy()
	if change != nil {
		change(&p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tenants[id] = &catalog.TenantView{ID: id, State: catalog.StateActive, Policy: &p}
}

func bearerOf(id string) string { return "Bearer " + id + ".secret-" + id }

// fakeNode is a node that does what do says; without it, it echoes the input.
type fakeNode struct {
	calls atomic.Int64
	do    func(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error)
}

func (n *fakeNode) Invoke(ctx context.Context, req *call.Request, sink call.Sink) (*call.Result, error) {
	n.calls.Add(1)
	if n.do != nil {
		return n.do(ctx, req, sink)
	}
	return okResult(req.Body), nil
}

func okResult(value []byte) *call.Result {
	return &call.Result{
		Value: value, Container: "0123456789abcdef0123456789abcdef", Start: call.StartWarm, Isolation: tenant.IsolationGVisor,
		Stages: call.Stages{Queue: time.Microsecond, Run: 1500 * time.Microsecond},
	}
}

// fakeServices are management services that say who asked.
type fakeServices struct {
	pb.UnimplementedCatalogServer
	pb.UnimplementedPoolsServer
	fail  error
	saw   atomic.Pointer[identity.Identity]
	asked atomic.Pointer[pb.DeployFunctionRequest]
	held  []*pb.Container // what ListContainers lists, of whichever tenant
	away  error           // of ListContainers
}

func (s *fakeServices) ListContainers(ctx context.Context, r *pb.ListContainersRequest) (*pb.ListContainersResponse, error) {
	out := &pb.ListContainersResponse{}
	for _, c := range s.held {
		if c.GetTenant() == r.GetTenant() {
			out.Containers = append(out.Containers, c)
		}
	}
	return out, s.away
}

func (s *fakeServices) note(ctx context.Context) error {
	who, ok := identity.From(ctx)
	if !ok {
		return errs.New(errs.Internal, "no identity in the context")
	}
	s.saw.Store(&who)
	return s.fail
}

func (s *fakeServices) GetTenant(ctx context.Context, r *pb.GetTenantRequest) (*pb.Tenant, error) {
	return &pb.Tenant{Id: r.GetId()}, s.note(ctx)
}

func (s *fakeServices) CreateTenant(ctx context.Context, r *pb.CreateTenantRequest) (*pb.Tenant, error) {
	return &pb.Tenant{Id: r.GetId()}, s.note(ctx)
}

func (s *fakeServices) DeployFunction(ctx context.Context, r *pb.DeployFunctionRequest) (*pb.Function, error) {
	s.asked.Store(r)
	return &pb.Function{Name: r.GetName(), Version: 1}, s.note(ctx)
}

func (s *fakeServices) GetPool(ctx context.Context, _ *pb.GetPoolRequest) (*pb.PoolStatus, error) {
	return &pb.PoolStatus{Engine: "fake"}, s.note(ctx)
}

// fakeSource is a controller that keeps what the test says; nothing, if it says nothing.
type fakeSource struct {
	name  string
	tail  func(ctx context.Context, req *pb.TailRequest, kept func([]*pb.LogLine) error, live func(*pb.LogLine) error) error
	calls func(ctx context.Context, req *pb.ListCallsRequest) ([]*pb.CallRecord, error)
	call  func(ctx context.Context, id string) (*pb.GetCallResponse, error)
	saw   atomic.Value // tenant.ID
}

func (s *fakeSource) Name() string { return s.name }

func (s *fakeSource) Tail(ctx context.Context, t tenant.ID, req *pb.TailRequest, kept func([]*pb.LogLine) error,
	live func(*pb.LogLine) error) error {
	s.saw.Store(t)
	if s.tail == nil {
		return kept(nil)
	}
	return s.tail(ctx, req, kept, live)
}

func (s *fakeSource) Calls(ctx context.Context, t tenant.ID, req *pb.ListCallsRequest) ([]*pb.CallRecord, error) {
	s.saw.Store(t)
	if s.calls == nil {
		return nil, nil
	}
	return s.calls(ctx, req)
}

func (s *fakeSource) Call(ctx context.Context, t tenant.ID, id string) (*pb.GetCallResponse, error) {
	s.saw.Store(t)
	if s.call == nil {
		return nil, errs.New(errs.NotFound, "no call %s", id)
	}
	return s.call(ctx, id)
}

// oneLine is a tail that sends a line and lasts.
func oneLine(text string) func(context.Context, *pb.TailRequest, func([]*pb.LogLine) error, func(*pb.LogLine) error) error {
	return func(ctx context.Context, req *pb.TailRequest, kept func([]*pb.LogLine) error, _ func(*pb.LogLine) error) error {
		if err := kept([]*pb.LogLine{{Text: text, Level: req.GetLevel()}}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

type fakeKeys struct {
	pb.UnimplementedKeysServer
	saw atomic.Pointer[pb.CreateKeyRequest]
}

func (s *fakeKeys) CreateKey(_ context.Context, r *pb.CreateKeyRequest) (*pb.CreateKeyResponse, error) {
	s.saw.Store(r)
	return &pb.CreateKeyResponse{Secret: "x"}, nil
}

func newCatalogue() *fakeCatalogue {
	c := &fakeCatalogue{tenants: map[tenant.ID]*catalog.TenantView{}, keys: map[string]*catalog.KeyView{},
		functions: map[string]*catalog.VersionView{}, access: map[string]*catalog.AccessView{}, urlKeys: map[string]string{},
		hosts: map[string]tenant.ID{"rules.acme.example": "acme"}, revision: 7}
	c.addTenant("acme", nil)
	c.addTenant("other", nil)
	c.addTenant("halted", func(p *tenant.Policy) { p.Suspended = true })
	c.addKey("op", "", identity.RoleOperator, time.Time{})
	for _, t := range []tenant.ID{"acme", "other", "halted"} {
		c.addKey(string(t)+"-invoke", t, identity.RoleInvoke, time.Time{})
		c.addKey(string(t)+"-deploy", t, identity.RoleDeploy, time.Time{})
		c.addKey(string(t)+"-admin", t, identity.RoleTenantAdmin, time.Time{})
	}
	c.addKey("gone", "acme", identity.RoleTenantAdmin, time.Now().Add(-time.Second))
	c.functions["acme/echo"] = &catalog.VersionView{Number: 3, Hash: strings.Repeat("ab", 32), Kind: call.KindAuto, Runtime: "node"}
	c.functions["acme/odd"] = &catalog.VersionView{Number: 1, Hash: strings.Repeat("cd", 32), Kind: call.KindAuto, Runtime: "cobol"}
	return c
}

var errBoom = errors.New("the secret inside of the machine")
