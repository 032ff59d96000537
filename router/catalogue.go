package router

import (
	"context"
	"time"

	"paddock/controller/catalog"
	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// Catalogue is what the router reads of tenants and functions; *catalog.View is one. It is in memory: only Source,
// Secrets (for a key-encryption key that is elsewhere) and WaitRevision may block. Nobody changes what it returns, and a changed record has another pointer. Safe for concurrent
// use.
type Catalogue interface {
	Tenant(id tenant.ID) (*catalog.TenantView, bool)
	// Function returns a version, the active one for version 0.
	Function(t tenant.ID, name string, version int64) (*catalog.VersionView, bool)
	// Access says who may call a function without a key of its tenant, and whether there is one.
	Access(t tenant.ID, function string) (*catalog.AccessView, bool)
	// TenantOfHost returns the tenant whose own a host name is, as it stands in a request, and whether there is one.
	TenantOfHost(host string) (tenant.ID, bool)
	Source(ctx context.Context, t tenant.ID, hash string) ([]byte, error)
	// Secrets returns what a function gets, decrypted, or what all of the tenant's get for function ""; nil if it is none.
	Secrets(ctx context.Context, t tenant.ID, function string) (*catalog.Secrets, error)
	// ResolvePipeline returns a pipeline with the versions that one call of it runs, all as of one revision; equal draws give
	// equal versions where several share the calls. The error is an *errs.Error.
	ResolvePipeline(t tenant.ID, name string, draw uint64) (*catalog.ResolvedPipeline, error)
	// ResolveDraft does the same for a pipeline that is stored nowhere; given[i] is the version of step i, nil: a stored one.
	ResolveDraft(t tenant.ID, p *catalog.PipelineView, given []*catalog.VersionView, draw uint64) (*catalog.ResolvedPipeline, error)
	// WaitRevision returns once the catalogue has seen revision, or with ctx's error.
	WaitRevision(ctx context.Context, revision int64) error
	// Age is how long ago the catalogue was last known to be up to date.
	Age() time.Duration
}

// Keyring checks API keys, in memory; *catalog.Keyring is one. Safe for concurrent use.
type Keyring interface {
	// Parse takes a token apart; it knows nothing of whether there is such a key.
	Parse(token string) (id, secret string, ok bool)
	// Key returns a key's record, expired or not; a changed record has another pointer.
	Key(id string) (*catalog.KeyView, bool)
	// Verify compares a secret with a key's record in constant time.
	Verify(k *catalog.KeyView, secret string) bool
	// VerifyURLKey compares a function's ?key= with its record, in constant time, and in the same where there is none.
	VerifyURLKey(t tenant.ID, function string, a *catalog.AccessView, key string) bool
	// LooksLikeKey says whether a text has what is meant to be an API key.
	LooksLikeKey(text string) bool
	// Stale says that changes have not been heard of for so long that keys must fail closed.
	Stale() bool
}

var (
	_ Catalogue = (*catalog.View)(nil)
	_ Keyring   = (*catalog.Keyring)(nil)
)

// revisionTime bounds how long a management request waits for a revision. A live watch is a fraction of a second behind.
const revisionTime = 5 * time.Second

// waitRevision waits until the catalogue has seen revision, not beyond the call's deadline.
func waitRevision(ctx context.Context, c Catalogue, revision int64, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	err := c.WaitRevision(ctx, revision)
	if err == nil {
		return nil
	}
	e := errs.Wrap(errs.NoCapacity, "wait for revision", err, "this router has not seen revision %d yet: try again", revision)
	e.RetryAfter = time.Second
	return e
}
