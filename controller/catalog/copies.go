package catalog

import (
	"context"
	"math"
	"time"

	"paddock/internal/tenant"
)

// copyAgain is how often what could not be fetched is tried again.
const copyAgain = time.Minute

// KeepCopies fetches, until ctx ends, the code of all versions that calls without a version reach, as they are activated: so that a
// process whose code is in the store serves tenants that are new to it while the store is away. Where no copies are kept it
// does nothing.
func (v *View) KeepCopies(ctx context.Context) {
	if v.opts.Blobs == nil || v.opts.Blobs.copies == nil {
		return
	}
	changes := v.Subscribe()
	defer changes.Close()
	failed := v.copyAll(ctx)
	again := time.NewTicker(copyAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			if failed {
				failed = v.copyAll(ctx)
			}
		case <-changes.C():
			for _, c := range changes.Take() {
				if c.Kind == FunctionChanged {
					if f, ok := v.lookup(c.Tenant, c.Name); ok {
						failed = v.copyCode(ctx, c.Tenant, f) || failed
					}
				}
			}
		}
	}
}

// copyAll says whether something could not be fetched.
func (v *View) copyAll(ctx context.Context) (failed bool) {
	v.tenants.all(func(t tenant.ID, _ *TenantView) bool {
		for _, f := range v.Functions(t, "", math.MaxInt) {
			failed = v.copyCode(ctx, t, f) || failed
		}
		return ctx.Err() == nil
	})
	return failed
}

func (v *View) copyCode(ctx context.Context, t tenant.ID, f *FunctionView) (failed bool) {
	for _, number := range []int64{f.Active, f.SplitVersion} {
		version, ok := f.find(number)
		if !ok {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, loadTimeout)
		err := v.opts.Blobs.fetch(ctx, t, version.Hash)
		cancel()
		if err != nil {
			v.log.Debug("code is not copied yet", "tenant", t, "function", f.Name, "version", number, "err", err)
			failed = true
		}
	}
	return failed
}
