package catalog

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/internal/call"
	"paddock/internal/identity"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// State is where a tenant is in its life.
type State string

// The states. A tenant that is being deleted serves nothing and takes no changes.
const (
	StateActive    State = "active"
	StateSuspended State = "suspended"
	StateDeleting  State = "deleting"
)

// TenantView is a tenant as it stands. Nobody changes one: a new one replaces it.
type TenantView struct {
	ID       tenant.ID
	State    State
	Policy   *tenant.Policy // Suspended unless the state is active
	Created  time.Time
	Revision int64
	dataKey  []byte // wrapped
	// keyReplaced is when the data key was, as long as the replaced one is still in it.
	keyReplaced time.Time
}

// KeyView is an API key's record, as far as checking it goes. Nobody changes one: a changed record is another pointer.
type KeyView struct {
	ID      string
	Tenant  tenant.ID // "" for an operator's
	Role    identity.Role
	Expires time.Time // zero: never
	MAC     []byte    // of the secret
	Scopes  identity.Scopes
	used    *lastUse // the same for every version of the record; nil: not noted
}

// lastUse is when a key was last used here, in seconds since 1970.
type lastUse struct{ at atomic.Int64 }

// Use notes that the key was used. Calls pay for it: once a second it writes, else it looks.
func (v *KeyView) Use(now time.Time) {
	if v.used == nil {
		return
	}
	if s := now.Unix(); v.used.at.Load() < s {
		v.used.at.Store(s)
	}
}

// usedAt is the last use that is known here.
func (e *keyEntry) usedAt() time.Time {
	at := e.lastUsed
	if e.used != nil {
		if s := e.used.at.Load(); s > 0 && time.Unix(s, 0).After(at) {
			at = time.Unix(s, 0)
		}
	}
	return at
}

// keyEntry is a key with what only listings want.
type keyEntry struct {
	KeyView
	note     string
	owner    string
	created  time.Time
	lastUsed time.Time // that the record says
}

// VersionView is one version of a function. Nobody changes one.
type VersionView struct {
	Number    int64
	Hash      string // SHA-256 of the source, hex
	SizeBytes int64
	Kind      call.Kind
	Runtime   string
	Author    string
	Note      string
	Created   time.Time
	Proven    bool // it has succeeded often enough to stand in for a later one
}

// isOf says whether a pipeline of that kind can run it.
func (v *VersionView) isOf(kind call.Kind) bool { return v.Kind == call.KindAuto || v.Kind == kind }

// What decode functions return an error for is a record of a newer Paddock, or garbage: it is kept out, and the last good
// copy stays.

func decodeTenant(id string, value []byte, revision int64, m *Maxima) (*TenantView, *pb.Policy, error) {
	var r pb.TenantRecord
	if err := proto.Unmarshal(value, &r); err != nil {
		return nil, nil, err
	}
	t, err := tenant.ParseID(id)
	if err != nil {
		return nil, nil, err
	}
	if r.GetId() != id {
		return nil, nil, fmt.Errorf("it says that it is tenant %.80q", r.GetId())
	}
	state := State(r.GetState())
	if state != StateActive && state != StateSuspended && state != StateDeleting {
		return nil, nil, fmt.Errorf("unknown state %.40q", state)
	}
	p := effectivePolicy(r.GetPolicy(), m)
	switch p.Isolation {
	case tenant.IsolationAny, tenant.IsolationGVisor, tenant.IsolationRunc:
	default:
		return nil, nil, fmt.Errorf("unknown isolation %.40q", p.Isolation)
	}
	p.Suspended = state != StateActive
	return &TenantView{
		ID: t, State: state, Policy: &p, Created: asTime(r.GetCreated()), Revision: revision, dataKey: r.GetWrappedKey(),
		keyReplaced: asTime(r.GetKeyReplaced()),
	}, r.GetPolicy(), nil
}

func decodeKey(id string, value []byte) (*keyEntry, error) {
	var r pb.KeyRecord
	if err := proto.Unmarshal(value, &r); err != nil {
		return nil, err
	}
	role, ok := identity.ParseRole(r.GetRole())
	switch {
	case r.GetId() != id:
		return nil, fmt.Errorf("it says that it is key %.80q", r.GetId())
	case !ok:
		return nil, fmt.Errorf("unknown role %.40q", r.GetRole())
	case (role == identity.RoleOperator) != (r.GetTenant() == ""):
		return nil, fmt.Errorf("role %s with tenant %.80q", role, r.GetTenant())
	case len(r.GetMac()) != macBytes:
		return nil, fmt.Errorf("a MAC of %d bytes", len(r.GetMac()))
	}
	scopes, unknown := identity.ParseScopes(r.GetScopes())
	if unknown != "" { // written by a newer version: not to be taken for a key without scopes
		return nil, fmt.Errorf("unknown scope %.40q", unknown)
	}
	return &keyEntry{
		KeyView: KeyView{
			ID: id, Tenant: tenant.ID(r.GetTenant()), Role: role, Expires: asTime(r.GetExpires()), MAC: r.GetMac(),
			Scopes: scopes, used: &lastUse{},
		},
		note: r.GetNote(), owner: ownerOf(r.GetOwner(), role), created: asTime(r.GetCreated()), lastUsed: asTime(r.GetLastUsed()),
	}, nil
}

// decodeFunction leaves the versions out, which are records of their own.
func decodeFunction(name string, value []byte, revision int64) (*FunctionView, error) {
	var r pb.FunctionRecord
	if err := proto.Unmarshal(value, &r); err != nil {
		return nil, err
	}
	if r.GetName() != name || r.GetActive() < 1 || r.GetNewest() < r.GetActive() {
		return nil, fmt.Errorf("function %.80q with active version %d of %d", r.GetName(), r.GetActive(), r.GetNewest())
	}
	f := functionView(&r, revision)
	if f.SplitVersion < 0 || f.SplitVersion > f.Newest || f.SplitPercent < 0 || f.SplitPercent > 99 ||
		(f.SplitVersion == 0) != (f.SplitPercent == 0) {
		return nil, fmt.Errorf("version %d has a share of %d %%", f.SplitVersion, f.SplitPercent)
	}
	return f, nil
}

// functionView shows a record, without versions.
func functionView(r *pb.FunctionRecord, revision int64) *FunctionView {
	f := &FunctionView{
		Name: r.GetName(), Active: r.GetActive(), Newest: r.GetNewest(), Revision: revision, SplitVersion: r.GetSplitVersion(),
		SplitPercent: int(r.GetSplitPercent()), Previous: previous(r),
	}
	if r.GetAccess() != nil {
		f.access = decodeAccess(r.GetAccess(), r.GetUrlKeyMac())
	}
	return f
}

// previous is the version that a rollback would activate, 0 if there is none.
func previous(r *pb.FunctionRecord) int64 {
	if r.GetSplitVersion() != 0 {
		return r.GetActive()
	}
	return lastFormer(r)
}

// lastFormer is the version that was active before the active one, 0 if there is none.
func lastFormer(r *pb.FunctionRecord) int64 {
	for _, n := range slices.Backward(r.GetFormer()) {
		if n != r.GetActive() { // what was active in between may be gone
			return n
		}
	}
	return 0
}

func decodeHost(value []byte) (tenant.ID, error) {
	var r pb.HostRecord
	if err := proto.Unmarshal(value, &r); err != nil {
		return "", err
	}
	return tenant.ParseID(r.GetTenant())
}

func decodeVersion(number string, value []byte) (*VersionView, error) {
	var r pb.VersionRecord
	if err := proto.Unmarshal(value, &r); err != nil {
		return nil, err
	}
	if n, err := strconv.ParseInt(number, 10, 64); err != nil || n != r.GetNumber() {
		return nil, fmt.Errorf("it says that it is version %d", r.GetNumber())
	}
	if _, ok := call.ParseKind(r.GetKind()); !ok {
		return nil, fmt.Errorf("unknown kind %.40q", r.GetKind())
	}
	if b, err := hex.DecodeString(r.GetHash()); err != nil || len(b) != hashBytes {
		return nil, fmt.Errorf("hash %.80q", r.GetHash())
	}
	return versionView(&r), nil
}

func versionView(r *pb.VersionRecord) *VersionView {
	kind, _ := call.ParseKind(r.GetKind())
	return &VersionView{
		Number: r.GetNumber(), Hash: r.GetHash(), SizeBytes: r.GetSizeBytes(), Kind: kind, Runtime: r.GetRuntime(),
		Author: r.GetAuthor(), Note: r.GetNote(), Created: asTime(r.GetCreated()), Proven: r.GetProven(),
	}
}

func decodeSecret(ref string, value []byte) (*SecretView, error) {
	var r pb.SecretRecord
	if err := proto.Unmarshal(value, &r); err != nil {
		return nil, err
	}
	if err := checkSecretPlace(r.GetName(), r.GetFunction()); err != nil {
		return nil, err
	}
	if secretRef(r.GetName(), r.GetFunction()) != ref {
		return nil, fmt.Errorf("it says that it is secret %.80q of function %.80q", r.GetName(), r.GetFunction())
	}
	return secretView(&r), nil
}

func secretView(r *pb.SecretRecord) *SecretView {
	return &SecretView{
		Name: r.GetName(), Function: r.GetFunction(), Revision: r.GetRevision(), Updated: asTime(r.GetUpdated()),
		Author: r.GetAuthor(), sealed: r.GetSealed(),
	}
}

func asTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func asTimestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
