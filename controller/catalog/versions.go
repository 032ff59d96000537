package catalog

import (
	"context"
	"fmt"

	udiff "github.com/aymanbagabas/go-udiff"

	"paddock/controller/store"
	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// ActivateVersion makes a version the one that unpinned calls get: all of them for percent 0 or 100, or that share of them,
// beside the active one. expected is the revision that the function must be as of; 0: any.
func (s *Service) ActivateVersion(ctx context.Context, t tenant.ID, name string, number int64, percent int32,
	expected int64) (*FunctionView, error) {
	if number < 1 {
		return nil, errs.New(errs.Invalid, "version %d: versions are numbered from 1", number)
	}
	if percent < 0 || percent > 100 {
		return nil, errs.New(errs.Invalid, "percent is %d: it must be from 0 to 100", percent)
	}
	return s.changeFunction(ctx, "activate", t, name, expected, func(f *functionChange) error {
		switch {
		case f.version(number) == nil:
			return f.noVersion(number)
		case percent == 0 || percent == 100:
			f.activate(number)
			return nil
		case f.rec.GetActive() == number:
			return errs.New(errs.Invalid, "version %d of %s is the active one: a share is given to another version beside it", number, name)
		}
		if f.rec.GetSplitVersion() != number || f.rec.GetSplitPercent() != percent {
			f.rec.SplitVersion, f.rec.SplitPercent = number, percent
			f.written = true
		}
		return nil
	})
}

// RollbackFunction activates the version that was active before; done again, it goes one further back. While a version has a
// share of the calls, it ends that.
func (s *Service) RollbackFunction(ctx context.Context, t tenant.ID, name string, expected int64) (*FunctionView, error) {
	return s.changeFunction(ctx, "roll back", t, name, expected, func(f *functionChange) error {
		r := f.rec
		f.written = true
		if r.GetSplitVersion() != 0 {
			r.SplitVersion, r.SplitPercent = 0, 0
			return nil
		}
		for n := len(r.GetFormer()); n > 0; n-- {
			last := r.Former[n-1]
			r.Former = r.Former[:n-1]
			if f.version(last) != nil && last != r.GetActive() {
				r.Active = last
				return nil
			}
		}
		return errs.New(errs.Conflict, "function %s has no version that was active before %d: activate one by its number", name,
			r.GetActive())
	})
}

// DeleteVersion removes a version that no call gets by itself and no pipeline names. Its code goes with a later Sweep.
func (s *Service) DeleteVersion(ctx context.Context, t tenant.ID, name string, number int64) (int64, error) {
	f, err := s.changeFunction(ctx, "delete version", t, name, 0, func(f *functionChange) error {
		switch {
		case f.version(number) == nil:
			return f.noVersion(number)
		case f.rec.GetActive() == number:
			return errs.New(errs.Conflict, "version %d of %s is the active one: activate another first", number, name)
		case f.rec.GetSplitVersion() == number:
			return errs.New(errs.Conflict, "version %d of %s gets %d %% of the calls: end that first, by a rollback", number, name,
				f.rec.GetSplitPercent())
		}
		users, err := f.change.usersOf(name, number)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return errs.New(errs.Conflict, "version %d of %s is a step of %s: take it out of there first", number, name, listPipelines(users))
		}
		f.drop(number)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return f.Revision, nil
}

// MarkProven notes that a version has succeeded often enough to stand in for a later one. It may be said more than once, and of
// a version that is gone, or whose number has other code now.
func (s *Service) MarkProven(ctx context.Context, t tenant.ID, name string, number int64, hash string) error {
	if v, ok := s.view.Function(t, name, number); ok && v.Proven && v.Hash == hash && number != 0 {
		return nil
	}
	_, err := s.write(ctx, "mark proven", string(t), func() (store.Txn, error) {
		rec := &pb.VersionRecord{}
		key := store.Version(t, name, number)
		rev, err := s.get(ctx, key, rec)
		if err != nil || rev == 0 || rec.GetProven() || rec.GetHash() != hash {
			return store.Txn{}, err
		}
		rec.Proven = true
		p, err := put(key, rec)
		return store.Txn{Guards: []store.Guard{{Key: key, ModRevision: rev}}, Puts: []store.Put{p}}, err
	})
	return err
}

// Diff is what differs between two versions' sources.
type Diff struct {
	From, To int64
	Unified  string // empty if nothing does
}

// DiffVersions compares two versions' sources line by line. 0 is the active version for from, and the newest one for to.
func (s *Service) DiffVersions(ctx context.Context, t tenant.ID, name string, from, to int64) (Diff, error) {
	f, ok := s.view.lookup(t, name)
	if !ok {
		return Diff{}, noFunction(t, name)
	}
	if to == 0 {
		to = f.Newest
		if all := f.Versions(); len(all) > 0 {
			to = all[0].Number
		}
	}
	a, before, err := s.source(ctx, t, f, from)
	if err != nil {
		return Diff{}, err
	}
	b, after, err := s.source(ctx, t, f, to)
	if err != nil {
		return Diff{}, err
	}
	d := Diff{From: a.Number, To: b.Number}
	if a.Hash == b.Hash {
		return d, nil
	}
	old := string(before)
	d.Unified, err = udiff.ToUnified(fmt.Sprintf("%s@%d", name, a.Number), fmt.Sprintf("%s@%d", name, b.Number), old,
		udiff.Lines(old, string(after)), udiff.DefaultContextLines)
	if err != nil {
		return Diff{}, errs.Wrap(errs.Internal, "diff", err, "the versions could not be compared; the operator's log has the details")
	}
	return d, nil
}

// source returns a version with its code; 0 is the active one.
func (s *Service) source(ctx context.Context, t tenant.ID, f *FunctionView, number int64) (*VersionView, []byte, error) {
	v, ok := f.Version(number)
	if !ok {
		return nil, nil, errs.New(errs.NotFound, "function %s has no version %d: `paddock functions versions %s` shows what there is", f.Name,
			number, f.Name)
	}
	code, err := s.view.Source(ctx, t, v.Hash)
	return v, code, err
}
