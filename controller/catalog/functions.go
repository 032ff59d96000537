package catalog

import (
	"bytes"
	"context"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// Deployment is what DeployFunction makes a version of.
type Deployment struct {
	Name    string
	Source  []byte
	Kind    call.Kind
	Runtime string // "": the default
	Note    string
	Author  string // the key's id
}

// Deployed is what stands after a deployment.
type Deployed struct {
	Version  *VersionView
	Revision int64
	New      bool // a version was made; otherwise there was one of the same code
}

// DeployFunction makes a version of the code and activates it. The code is on disk before the write that names it. The same
// code, kind and runtime is the same version, whoever deploys it again.
func (s *Service) DeployFunction(ctx context.Context, t tenant.ID, d Deployment) (Deployed, error) {
	if err := s.checkDeployment(&d); err != nil {
		return Deployed{}, err
	}
	x := &deploying{service: s, tenant: t, Deployment: d, hash: hashCode(d.Source)}
	rev, err := s.write(ctx, "deploy", string(t), func() (store.Txn, error) { return x.decide(ctx) })
	if err != nil {
		return Deployed{}, err
	}
	if rev == 0 {
		rev = x.functionRev
	}
	if err := x.stillThere(ctx); err != nil {
		return Deployed{}, s.fault("deploy", err)
	}
	return Deployed{Version: x.version, Revision: rev, New: x.isNew}, nil
}

// checkDeployment judges what needs no tenant, and fills in defaults.
func (s *Service) checkDeployment(d *Deployment) error {
	if err := CheckFunctionName(d.Name); err != nil {
		return err
	}
	if d.Runtime == "" {
		d.Runtime = s.opts.Runtimes[0]
	}
	switch {
	case !slices.Contains(s.opts.Runtimes, d.Runtime):
		return errs.New(errs.Invalid, "there is no runtime %.40q: use one of %v", d.Runtime, s.opts.Runtimes)
	case len(bytes.TrimSpace(d.Source)) == 0:
		return errs.New(errs.Invalid, "the source is empty")
	case !utf8.Valid(d.Source):
		return errs.New(errs.Invalid, "the source is not UTF-8: byte %d is where it stops to be", invalidAt(d.Source))
	}
	return checkNote(d.Note)
}

func invalidAt(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return len(b)
}

// deploying is one deployment, decided again for every try.
type deploying struct {
	Deployment
	service *Service
	tenant  tenant.ID
	hash    string

	sealedFor   []byte // the wrapped key under which the code is on disk
	functionRev int64
	version     *VersionView
	isNew       bool
}

func (x *deploying) decide(ctx context.Context) (store.Txn, error) {
	s := x.service
	rec, tenantRev, err := s.tenantFor(ctx, x.tenant)
	if err != nil {
		return store.Txn{}, err
	}
	policy := resolvePolicy(rec.GetPolicy())
	if n := int64(len(x.Source)); n > policy.SourceBytes {
		return store.Txn{}, errs.New(errs.Invalid, "the source has %d bytes: at most %d are allowed", n, policy.SourceBytes)
	}
	function := &pb.FunctionRecord{Name: x.Name}
	if x.functionRev, err = s.get(ctx, store.Function(x.tenant, x.Name), function); err != nil {
		return store.Txn{}, err
	}
	txn := store.Txn{Guards: []store.Guard{
		{Key: store.Tenant(x.tenant), ModRevision: tenantRev},
		{Key: store.Function(x.tenant, x.Name), ModRevision: x.functionRev},
	}}
	if x.functionRev == 0 {
		if err := s.countFunction(ctx, x.tenant, policy.MaxFunctions, &txn); err != nil {
			return store.Txn{}, err
		}
	}
	versions, err := s.versions(ctx, x.tenant, x.Name)
	if err != nil {
		return store.Txn{}, err
	}
	x.version, x.isNew = x.same(versions), false
	if x.version != nil && function.GetActive() == x.version.Number {
		return store.Txn{}, x.keepCode(ctx, rec.GetWrappedKey())
	}
	if x.version == nil {
		function.Newest++
		if err := x.addVersion(&txn, versions, function); err != nil {
			return store.Txn{}, err
		}
	}
	function.Active = x.version.Number
	p, err := put(store.Function(x.tenant, x.Name), function)
	if err != nil {
		return store.Txn{}, err
	}
	txn.Puts = append(txn.Puts, p)
	return txn, x.keepCode(ctx, rec.GetWrappedKey())
}

// same returns the version of the same code, or nil.
func (x *deploying) same(versions []*VersionView) *VersionView {
	for _, v := range versions {
		if v.Hash == x.hash && v.Kind == x.Kind && v.Runtime == x.Runtime {
			return v
		}
	}
	return nil
}

// addVersion puts the new version in, and takes the oldest out when there are too many.
func (x *deploying) addVersion(txn *store.Txn, versions []*VersionView, f *pb.FunctionRecord) error {
	x.isNew = true
	x.version = &VersionView{
		Number: f.Newest, Hash: x.hash, SizeBytes: int64(len(x.Source)), Kind: x.Kind, Runtime: x.Runtime,
		Author: x.Author, Note: x.Note, Created: time.Now(),
	}
	key := store.Version(x.tenant, x.Name, f.Newest)
	p, err := put(key, &pb.VersionRecord{
		Number: x.version.Number, Hash: x.hash, SizeBytes: x.version.SizeBytes, Kind: string(x.Kind), Runtime: x.Runtime,
		Author: x.Author, Note: x.Note, Created: asTimestamp(x.version.Created),
	})
	txn.Guards = append(txn.Guards, store.Guard{Key: key})
	txn.Puts = append(txn.Puts, p)
	for _, old := range versions[:max(0, len(versions)+1-MaxVersions)] {
		txn.Deletes = append(txn.Deletes, store.Version(x.tenant, x.Name, old.Number))
	}
	return err
}

// keepCode has the code on disk under the tenant's key before anything names it. It puts it even if some version has the
// same: then it is young again for the sweep, and whole if it was lost.
func (x *deploying) keepCode(ctx context.Context, wrapped []byte) error {
	if x.sealedFor != nil && bytes.Equal(x.sealedFor, wrapped) {
		return nil
	}
	s := x.service
	sealed, err := s.seal.seal(ctx, x.tenant, wrapped, kindCode, x.hash, x.Source)
	if e := asKEKAway("deploy", err); e != nil {
		return e
	}
	if err != nil {
		return errs.Wrap(errs.Internal, "deploy", err, "the code could not be encrypted; the operator's log has the details")
	}
	if err := s.opts.Blobs.put(ctx, x.tenant, x.hash, sealed); err != nil {
		return err
	}
	x.sealedFor = wrapped
	return nil
}

// stillThere puts the code again if a sweep, which had found it old and unused a moment before, took it away between
// keepCode and the write that names it.
func (x *deploying) stillThere(ctx context.Context) error {
	there, err := x.service.opts.Blobs.has(ctx, x.tenant, x.hash)
	if err != nil || there {
		return err
	}
	wrapped := x.sealedFor
	x.sealedFor = nil
	return x.keepCode(ctx, wrapped)
}

// countFunction takes one of the tenant's places for functions, in txn.
func (s *Service) countFunction(ctx context.Context, t tenant.ID, most int, txn *store.Txn) error {
	u, rev, err := s.usageFor(ctx, t)
	if err != nil {
		return err
	}
	if int(u.GetFunctions()) >= most {
		e := errs.New(errs.Limited, "tenant %s has %d functions: that is its limit; delete some or have it raised", t, most)
		e.Cause = "functions"
		return e
	}
	u.Functions++
	return putUsage(t, u, rev, txn)
}

func putUsage(t tenant.ID, u *pb.UsageRecord, rev int64, txn *store.Txn) error {
	p, err := put(store.Usage(t), u)
	txn.Guards = append(txn.Guards, store.Guard{Key: store.Usage(t), ModRevision: rev})
	txn.Puts = append(txn.Puts, p)
	return err
}

// versions reads a function's versions from the store, oldest first.
func (s *Service) versions(ctx context.Context, t tenant.ID, name string) ([]*VersionView, error) {
	kvs, _, err := s.store.List(ctx, store.VersionsOf(t, name))
	if err != nil {
		return nil, err
	}
	out := make([]*VersionView, 0, len(kvs))
	for _, kv := range kvs {
		var rec pb.VersionRecord
		if err := proto.Unmarshal(kv.Value, &rec); err != nil {
			return nil, errs.Wrap(errs.Internal, "read "+kv.Key, err, "a record cannot be read; the operator's log has the details")
		}
		out = append(out, versionView(&rec))
	}
	return out, nil
}

// DeleteFunction removes a function with its versions. Calls that run go on; its code goes with a later Sweep, unless
// another function has the same.
func (s *Service) DeleteFunction(ctx context.Context, t tenant.ID, name string) (int64, error) {
	if err := CheckFunctionName(name); err != nil {
		return 0, err
	}
	return s.write(ctx, "delete function", string(t), func() (store.Txn, error) {
		rev, err := s.get(ctx, store.Function(t, name), &pb.FunctionRecord{})
		if err != nil {
			return store.Txn{}, err
		}
		if rev == 0 {
			return store.Txn{}, noFunction(t, name)
		}
		versions, err := s.versions(ctx, t, name)
		if err != nil {
			return store.Txn{}, err
		}
		txn := store.Txn{
			Guards:  []store.Guard{{Key: store.Function(t, name), ModRevision: rev}},
			Deletes: []string{store.Function(t, name)},
		}
		for _, v := range versions {
			txn.Deletes = append(txn.Deletes, store.Version(t, name, v.Number))
		}
		u, usageRev, err := s.usageFor(ctx, t)
		if err != nil {
			return store.Txn{}, err
		}
		u.Functions = max(0, u.Functions-1)
		if err := s.dropSecretsOf(ctx, t, name, u, &txn); err != nil {
			return store.Txn{}, err
		}
		return txn, putUsage(t, u, usageRev, &txn)
	})
}

func noFunction(t tenant.ID, name string) *errs.Error {
	return errs.New(errs.NotFound, "tenant %s has no function %.80q", t, name)
}
