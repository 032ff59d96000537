package catalog

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"paddock/controller/store"
	"paddock/internal/tenant"
)

// apply collects the effect of records on a View. It belongs to the view's run goroutine.
type apply struct {
	view      *View
	tenants   *edit[tenant.ID, *TenantView]
	keys      *edit[string, *keyEntry]
	snapshots *edit[tenant.ID, *snapshot]
	hosts     *edit[string, tenant.ID]
	secrets   *edit[tenant.ID, *secretSet]
	serving   *fleetEdit
	members   bool                    // a tenant has come or gone
	mine      map[tenant.ID]*snapshot // those that this apply made and may change
	touched   map[*FunctionView]bool  // those that it made and may change
	notices   []Change
	changed   []int64 // revisions of the puts that changed something, 0 for removals
}

func (v *View) newApply() *apply {
	return &apply{
		view: v, tenants: v.tenants.edit(), keys: v.keys.edit(), snapshots: v.snapshots.edit(),
		hosts: v.hosts.edit(), secrets: v.secrets.edit(), mine: map[tenant.ID]*snapshot{}, touched: map[*FunctionView]bool{},
		serving: v.serving.edit(),
	}
}

// finish makes everything visible. The tables come in an order in which a key never appears before its tenant. All functions
// and pipelines of a tenant are one value, which a reader sees as it was before or after.
func (a *apply) finish() []Change {
	for f := range a.touched {
		f.settle()
	}
	for t, s := range a.mine {
		if s.empty() {
			a.snapshots.del(t)
		} else {
			a.snapshots.set(t, s)
		}
	}
	a.tenants.publish()
	if a.members {
		a.view.newTenantIDs()
	}
	a.secrets.publish()
	a.snapshots.publish()
	a.hosts.publish()
	a.keys.publish()
	a.serving.publish()
	a.view.broken.Store(int64(len(a.view.unreadable)))
	return a.notices
}

// changedUpTo counts the changes that a watch which had come to revision seen should have brought.
func (a *apply) changedUpTo(seen int64) int {
	n := 0
	for _, rev := range a.changed {
		if rev != 0 && rev <= seen {
			n++
		}
	}
	return n
}

func (a *apply) notice(kind ChangeKind, t tenant.ID, name string) {
	a.notices = append(a.notices, Change{Kind: kind, Tenant: t, Name: name})
}

// put takes a record in. One that cannot be read leaves what was there, and raises an alarm. kept says that it is one of those
// that the view holds, or holds out.
func (a *apply) put(key string, value []byte, rev int64) (kept bool) {
	if a.view.mods[key] == rev {
		return true
	}
	kind, parts := store.SplitKey(key)
	if a.view.opts.ServingOnly && kind != store.KindTenant && kind != store.KindController && kind != store.KindAssignment && kind != store.KindRuntime {
		return false
	}
	var err error
	switch kind {
	case store.KindTenant:
		err = a.putTenant(parts[0], value, rev)
	case store.KindKey:
		err = a.putKey(parts[0], value)
	case store.KindFunction:
		err = a.putFunction(tenant.ID(parts[0]), parts[1], value, rev)
	case store.KindVersion:
		err = a.putVersion(tenant.ID(parts[0]), parts[1], parts[2], value, rev)
	case store.KindPipeline:
		err = a.putPipeline(tenant.ID(parts[0]), parts[1], value, rev)
	case store.KindSecret:
		err = a.putSecret(tenant.ID(parts[0]), parts[1], value)
	case store.KindHost:
		err = a.putHost(parts[0], value)
	default:
		var done bool
		if done, err = a.putFleet(kind, parts, value, rev); !done {
			return false
		}
	}
	a.view.mods[key] = rev
	a.changed = append(a.changed, rev)
	if err != nil {
		a.view.unreadable[key] = true
		a.view.log.Error("catalogue: a record cannot be read; keeping the last good copy", "key", key, "revision", rev,
			"err", err)
		return true
	}
	delete(a.view.unreadable, key)
	return true
}

// removeOthers takes out what is held and is not among all that there is at rev.
func (a *apply) removeOthers(all []store.KV, rev int64) {
	listed := make(map[string]bool, len(all))
	for _, kv := range all {
		listed[kv.Key] = true
	}
	for key := range a.view.mods {
		if !listed[key] {
			a.remove(key, rev)
		}
	}
}

// remove takes a record out that went with revision rev, or before it.
func (a *apply) remove(key string, rev int64) {
	if _, held := a.view.mods[key]; !held {
		return
	}
	delete(a.view.mods, key)
	delete(a.view.unreadable, key)
	a.changed = append(a.changed, 0)
	kind, parts := store.SplitKey(key)
	switch kind {
	case store.KindTenant:
		a.members = true
		a.tenants.del(tenant.ID(parts[0]))
		a.notice(TenantRemoved, tenant.ID(parts[0]), "")
	case store.KindKey:
		if old, ok := a.keys.get(parts[0]); ok {
			a.keys.del(parts[0])
			a.notice(KeyRemoved, old.Tenant, parts[0])
		}
	case store.KindFunction:
		t, name := tenant.ID(parts[0]), parts[1]
		a.editFunction(t, name, rev, func(f *FunctionView) { *f = FunctionView{Name: name, versions: f.versions} })
		a.notice(FunctionRemoved, t, name)
	case store.KindPipeline:
		delete(a.editSnapshot(tenant.ID(parts[0]), rev).pipelines, parts[1])
		a.notice(PipelineRemoved, tenant.ID(parts[0]), parts[1])
	case store.KindController, store.KindAssignment:
		a.removeFleet(kind, parts)
	case store.KindHost:
		a.hosts.del(parts[0])
	case store.KindSecret:
		a.editSecret(tenant.ID(parts[0]), parts[1], nil)
		a.notice(SecretRemoved, tenant.ID(parts[0]), parts[1])
	case store.KindVersion:
		number, err := strconv.ParseInt(parts[2], 10, 64)
		if err == nil {
			a.editFunction(tenant.ID(parts[0]), parts[1], rev, func(f *FunctionView) { f.drop(number) })
		}
	}
}

func (a *apply) putTenant(id string, value []byte, rev int64) error {
	t, policy, err := decodeTenant(id, value, rev, &a.view.opts.Maxima)
	if err != nil {
		return err
	}
	t.Policy = a.view.policies.shared(policy, t.Policy)
	old, had := a.tenants.get(t.ID)
	a.members = a.members || !had
	if had && old.State == t.State && reflect.DeepEqual(old.Policy, t.Policy) {
		t.Policy = old.Policy // the same pointer: nothing for others to react to
	} else {
		a.notice(TenantChanged, t.ID, "")
	}
	a.tenants.set(t.ID, t)
	return nil
}

func (a *apply) putKey(id string, value []byte) error {
	k, err := decodeKey(id, value)
	if err != nil {
		return err
	}
	if old, ok := a.keys.get(id); ok {
		k.used = old.used
	}
	a.keys.set(id, k)
	a.notice(KeyChanged, k.Tenant, id)
	return nil
}

func (a *apply) putFunction(t tenant.ID, name string, value []byte, rev int64) error {
	next, err := decodeFunction(name, value, rev)
	if err != nil {
		return err
	}
	a.editFunction(t, name, rev, func(f *FunctionView) {
		if reflect.DeepEqual(f.access, next.access) {
			next.access = f.access // the same pointer: what was derived from it stays
		}
		next.versions = f.versions
		*f = *next
	})
	a.notice(FunctionChanged, t, name)
	return nil
}

func (a *apply) putVersion(t tenant.ID, name, number string, value []byte, rev int64) error {
	v, err := decodeVersion(number, value)
	if err != nil {
		return fmt.Errorf("version %s of %s: %w", number, name, err)
	}
	a.editFunction(t, name, rev, func(f *FunctionView) { f.put(v) })
	return nil
}

func (a *apply) putPipeline(t tenant.ID, name string, value []byte, rev int64) error {
	p, err := decodePipeline(name, value, rev)
	if err != nil {
		return err
	}
	s := a.editSnapshot(t, rev)
	if s.pipelines == nil {
		s.pipelines = map[string]*PipelineView{}
	}
	s.pipelines[name] = p
	a.notice(PipelineChanged, t, name)
	return nil
}

func (a *apply) putHost(name string, value []byte) error {
	t, err := decodeHost(value)
	if err != nil {
		return err
	}
	a.hosts.set(name, t)
	return nil
}

func (a *apply) putSecret(t tenant.ID, ref string, value []byte) error {
	s, err := decodeSecret(ref, value)
	if err != nil {
		return err
	}
	a.editSecret(t, ref, s)
	a.notice(SecretChanged, t, ref)
	return nil
}

// editSecret changes a copy of a tenant's secrets: another pointer, from which what was decrypted is known to be old. nil
// removes.
func (a *apply) editSecret(t tenant.ID, ref string, s *SecretView) {
	next := &secretSet{byRef: map[string]*SecretView{}}
	if old, ok := a.secrets.get(t); ok {
		next.byRef = maps.Clone(old.byRef)
	}
	if s != nil {
		next.byRef[ref] = s
	} else {
		delete(next.byRef, ref)
	}
	if len(next.byRef) == 0 {
		a.secrets.del(t)
		return
	}
	a.secrets.set(t, next)
}

// editSnapshot returns a copy of what a tenant's calls run, to be changed for a revision.
func (a *apply) editSnapshot(t tenant.ID, rev int64) *snapshot {
	s, ok := a.mine[t]
	if !ok {
		old, _ := a.snapshots.get(t)
		s = newSnapshot(old)
		a.mine[t] = s
	}
	s.revision = max(s.revision, rev)
	return s
}

// editFunction changes a copy of a function, and drops it when nothing is left of it.
func (a *apply) editFunction(t tenant.ID, name string, rev int64, change func(*FunctionView)) {
	s := a.editSnapshot(t, rev)
	f, had := s.known(name)
	if !had || !a.touched[f] {
		next := &FunctionView{Name: name}
		if had {
			*next = *f
			next.versions = slices.Clone(f.versions)
		}
		f = next
		a.touched[f] = true
	}
	change(f)
	s.put(f)
	if f.Active == 0 && len(f.versions) == 0 {
		s.drop(name)
		delete(a.touched, f)
	}
}
