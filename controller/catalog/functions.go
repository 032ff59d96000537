package catalog

import (
	"bytes"
	"context"
	"slices"
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
	Name       string
	Source     []byte
	Kind       call.Kind
	Runtime    string // "": the default
	Note       string
	Author     string // the key's id
	KeepActive bool   // unpinned calls stay where they are; the first version of a function is active all the same
	// ExpectedRevision is the one that the function must be as of; 0: any.
	ExpectedRevision int64
}

// Deployed is what stands after a deployment.
type Deployed struct {
	Function *FunctionView
	Version  *VersionView // of this code
	Revision int64
	New      bool // a version was made; otherwise there was one of the same code
}

// DeployFunction makes a version of the code and activates it, unless it is told to leave the active one. The code compiles, and
// is on disk before the write that names it. The same code, kind and runtime is the same version, whoever deploys it again.
func (s *Service) DeployFunction(ctx context.Context, t tenant.ID, d Deployment) (Deployed, error) {
	u, err := s.newUpload(d)
	if err != nil {
		return Deployed{}, err
	}
	if err := s.compile(ctx, t, []*upload{u}); err != nil {
		return Deployed{}, s.fault("compile", err)
	}
	var f *functionChange
	rev, err := s.write(ctx, "deploy", string(t), func() (store.Txn, error) {
		c, err := s.begin(ctx, t)
		if err != nil {
			return store.Txn{}, err
		}
		if f, err = c.deploy(u); err != nil {
			return store.Txn{}, err
		}
		return c.finish()
	})
	if err != nil {
		return Deployed{}, err
	}
	if err := u.stillThere(ctx, s, t); err != nil {
		return Deployed{}, s.fault("deploy", err)
	}
	out := Deployed{Function: f.view(rev), Version: u.version, New: u.isNew}
	out.Revision = out.Function.Revision
	return out, nil
}

// upload is code on its way to be a version.
type upload struct {
	Deployment
	hash string

	sealedFor []byte // the wrapped key under which the code is on disk
	version   *VersionView
	isNew     bool
}

// newUpload judges what needs no tenant, and fills in defaults.
func (s *Service) newUpload(d Deployment) (*upload, error) {
	if err := CheckFunctionName(d.Name); err != nil {
		return nil, err
	}
	if d.Runtime == "" {
		d.Runtime = s.opts.Runtimes[0]
	}
	if d.Kind == "" {
		d.Kind = call.KindAuto
	}
	switch {
	case !slices.Contains(s.opts.Runtimes, d.Runtime):
		return nil, errs.New(errs.Invalid, "there is no runtime %.40q: use one of %v", d.Runtime, s.opts.Runtimes)
	case len(bytes.TrimSpace(d.Source)) == 0:
		return nil, errs.New(errs.Invalid, "the source of %s is empty", d.Name)
	case !utf8.Valid(d.Source):
		return nil, errs.New(errs.Invalid, "the source of %s is not UTF-8: byte %d is where it stops to be", d.Name, invalidAt(d.Source))
	}
	return &upload{Deployment: d, hash: hashCode(d.Source)}, checkNote(d.Note)
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

// deploy decides a deployment, and has its code on disk.
func (c *change) deploy(u *upload) (*functionChange, error) {
	if n := int64(len(u.Source)); n > c.policy.SourceBytes {
		return nil, tooLong(u.Name, n, c.policy.SourceBytes)
	}
	f, err := c.function(u.Name, u.ExpectedRevision)
	if err != nil {
		return nil, err
	}
	if f.rev == 0 {
		if err := c.countFunction(); err != nil {
			return nil, err
		}
	}
	u.version, u.isNew = u.same(f.versions), false
	if u.version == nil {
		u.isNew = true
		u.version = &VersionView{
			Hash: u.hash, SizeBytes: int64(len(u.Source)), Kind: u.Kind, Runtime: u.Runtime, Author: u.Author, Note: u.Note,
		}
		if err := f.addVersion(u.version); err != nil {
			return nil, err
		}
	}
	if !u.KeepActive || f.rec.GetActive() == 0 {
		f.activate(u.version.Number)
	}
	if err := f.trim(); err != nil {
		return nil, err
	}
	return f, u.keepCode(c.ctx, c.service, c.tenant, c.wrapped)
}

// same returns the version of the same code, or nil.
func (u *upload) same(versions []*VersionView) *VersionView {
	for _, v := range versions {
		if v.Hash == u.hash && v.Kind == u.Kind && v.Runtime == u.Runtime {
			return v
		}
	}
	return nil
}

// keepCode has the code on disk under the tenant's key before anything names it. It puts it even if some version has the
// same: then it is young again for the sweep, and whole if it was lost.
func (u *upload) keepCode(ctx context.Context, s *Service, t tenant.ID, wrapped []byte) error {
	if u.sealedFor != nil && bytes.Equal(u.sealedFor, wrapped) {
		return nil
	}
	sealed, err := s.seal.seal(ctx, t, wrapped, kindCode, u.hash, u.Source)
	if e := asKEKAway("deploy", err); e != nil {
		return e
	}
	if err != nil {
		return errs.Wrap(errs.Internal, "deploy", err, "the code could not be encrypted; the operator's log has the details")
	}
	if err := s.opts.Blobs.put(ctx, t, u.hash, sealed); err != nil {
		return err
	}
	u.sealedFor = wrapped
	return nil
}

// stillThere puts the code again if a sweep, which had found it old and unused a moment before, took it away between
// keepCode and the write that names it.
func (u *upload) stillThere(ctx context.Context, s *Service, t tenant.ID) error {
	there, err := s.opts.Blobs.has(ctx, t, u.hash)
	if err != nil || there {
		return err
	}
	wrapped := u.sealedFor
	u.sealedFor = nil
	return u.keepCode(ctx, s, t, wrapped)
}

// countFunction takes one of the tenant's places for functions.
func (c *change) countFunction() error {
	if err := c.count(true); err != nil {
		return err
	}
	if most := c.policy.MaxFunctions; int(c.usage.GetFunctions()) >= most {
		e := errs.New(errs.Limited, "tenant %s has %d functions: its limit is %d; delete some or have it raised", c.tenant,
			c.usage.GetFunctions(), most)
		e.Cause = "functions"
		return e
	}
	c.usage.Functions++
	return nil
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
			return nil, unreadable(kv.Key, err)
		}
		out = append(out, versionView(&rec))
	}
	return out, nil
}

// DeleteFunction removes a function with its versions, unless a pipeline names it. Calls that run go on; its code goes with a
// later Sweep, unless another function has the same.
func (s *Service) DeleteFunction(ctx context.Context, t tenant.ID, name string) (int64, error) {
	if err := CheckFunctionName(name); err != nil {
		return 0, err
	}
	return s.write(ctx, "delete function", string(t), func() (store.Txn, error) {
		c, err := s.begin(ctx, t)
		if err != nil {
			return store.Txn{}, err
		}
		f, err := c.existing(name, 0)
		if err != nil {
			return store.Txn{}, err
		}
		if err := c.count(true); err != nil {
			return store.Txn{}, err
		}
		users, err := c.usersOf(name, 0)
		if err != nil {
			return store.Txn{}, err
		}
		if len(users) > 0 {
			return store.Txn{}, errs.New(errs.Conflict, "function %s is a step of %s: take it out of there first", name, listPipelines(users))
		}
		c.remove(store.Function(t, name))
		for _, v := range f.versions {
			c.remove(store.Version(t, name, v.Number))
		}
		c.usage.Functions = max(0, c.usage.Functions-1)
		if err := s.dropSecretsOf(ctx, t, name, c.usage, &c.txn); err != nil {
			return store.Txn{}, err
		}
		return c.finish()
	})
}

func noFunction(t tenant.ID, name string) *errs.Error {
	return errs.New(errs.NotFound, "tenant %s has no function %.80q", t, name)
}
