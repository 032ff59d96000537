package catalog

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"paddock/internal/tenant"
)

// snapshot is what a tenant's calls run, its functions and pipelines, as they stood at one revision of the store. It is
// replaced whole: who holds one sees a publication with all that belongs to it, or nothing of it. Nobody changes one that
// readers can see.
type snapshot struct {
	functions map[string]*FunctionView
	pipelines map[string]*PipelineView // nil: none
	revision  int64                    // of the newest change that is in it

	names atomic.Pointer[snapshotNames] // made when somebody lists them
}

// snapshotNames are sorted.
type snapshotNames struct{ functions, pipelines []string }

// sorted returns the names. Of two who make them at a time both have the same.
func (s *snapshot) sorted() *snapshotNames {
	n := s.names.Load()
	if n == nil {
		n = &snapshotNames{slices.Sorted(maps.Keys(s.functions)), slices.Sorted(maps.Keys(s.pipelines))}
		s.names.Store(n)
	}
	return n
}

// newSnapshot returns a copy of old, which may be nil, to be changed before others see it.
func newSnapshot(old *snapshot) *snapshot {
	s := &snapshot{functions: map[string]*FunctionView{}}
	if old != nil {
		s.functions, s.pipelines, s.revision = maps.Clone(old.functions), maps.Clone(old.pipelines), old.revision
	}
	return s
}

func (s *snapshot) empty() bool { return len(s.functions)+len(s.pipelines) == 0 }

// function returns a function that calls can reach.
func (s *snapshot) function(name string) (*FunctionView, bool) {
	f, ok := s.functions[name]
	return f, ok && f.Active != 0
}

// largest is the size of the largest source that is active.
func (s *snapshot) largest() (bytes int64) {
	for _, f := range s.functions {
		if v, ok := f.Version(f.Active); ok {
			bytes = max(bytes, v.SizeBytes)
		}
	}
	return bytes
}

// after cuts a sorted list of names to those after one.
func after(names []string, last string) []string {
	i, found := slices.BinarySearch(names, last)
	if found {
		i++
	}
	return names[i:]
}

// FunctionView is a function with its versions. Nobody changes one.
type FunctionView struct {
	Name     string
	Active   int64 // 0 until its record is seen
	Newest   int64
	Revision int64
	// SplitVersion gets SplitPercent of the unpinned calls, 1 to 99, and Active the rest. 0: Active gets all.
	SplitVersion int64
	SplitPercent int
	Previous     int64 // what a rollback would activate; 0: nothing
	access       *AccessView
	versions     map[int64]*VersionView
	proven       []*VersionView // newest first
}

// Version returns a version, the active one for number 0.
func (f *FunctionView) Version(number int64) (*VersionView, bool) {
	if number == 0 {
		number = f.Active
	}
	v, ok := f.versions[number]
	return v, ok
}

// Versions returns all versions, newest first.
func (f *FunctionView) Versions() []*VersionView {
	all := slices.Collect(maps.Values(f.versions))
	slices.SortFunc(all, func(a, b *VersionView) int { return int(b.Number - a.Number) })
	return all
}

// Percent is a version's share of the unpinned calls.
func (f *FunctionView) Percent(number int64) int {
	switch {
	case f.SplitPercent == 0 && number == f.Active:
		return 100
	case number == f.Active:
		return 100 - f.SplitPercent
	case number == f.SplitVersion:
		return f.SplitPercent
	}
	return 0
}

// draw returns the version that an unpinned call gets, by a random number.
func (f *FunctionView) draw(n uint64) (*VersionView, bool) {
	if n%100 < uint64(f.SplitPercent) {
		if v, ok := f.versions[f.SplitVersion]; ok {
			return v, true
		}
	}
	return f.Version(0)
}

// lastGood returns the newest version before number that has proved itself, or nil.
func (f *FunctionView) lastGood(number int64) *VersionView {
	for _, v := range f.proven {
		if v.Number < number {
			return v
		}
	}
	return nil
}

// settle derives what is looked up from the versions.
func (f *FunctionView) settle() {
	f.proven = nil
	for _, v := range f.versions {
		if v.Proven {
			f.proven = append(f.proven, v)
		}
	}
	slices.SortFunc(f.proven, func(a, b *VersionView) int { return int(b.Number - a.Number) })
}

// Function returns a version of a function and whether there is one: the one of that number, or for 0 the active one, or
// the one that has a share of the calls, by chance.
func (v *View) Function(t tenant.ID, name string, version int64) (*VersionView, bool) {
	f, ok := v.lookup(t, name)
	if !ok {
		return nil, false
	}
	if version == 0 && f.SplitPercent != 0 {
		return f.draw(rand.Uint64())
	}
	return f.Version(version)
}

func (v *View) lookup(t tenant.ID, name string) (*FunctionView, bool) {
	s, ok := v.snapshots.get(t)
	if !ok {
		return nil, false
	}
	return s.function(name)
}

// Functions returns up to limit of a tenant's functions in the order of their names, after the name last.
func (v *View) Functions(t tenant.ID, last string, limit int) []*FunctionView {
	s, ok := v.snapshots.get(t)
	if !ok {
		return nil
	}
	var all []*FunctionView
	for _, name := range after(s.sorted().functions, last) {
		if len(all) == limit {
			break
		}
		if f, ok := s.function(name); ok {
			all = append(all, f)
		}
	}
	return all
}

// Pipelines returns up to limit of a tenant's pipelines in the order of their names, after the name last.
func (v *View) Pipelines(t tenant.ID, last string, limit int) []*PipelineView {
	s, ok := v.snapshots.get(t)
	if !ok {
		return nil
	}
	var all []*PipelineView
	for _, name := range after(s.sorted().pipelines, last) {
		if len(all) == limit {
			break
		}
		all = append(all, s.pipelines[name])
	}
	return all
}

// usedBy returns the names of the pipelines that name a version of a function by its number.
func (v *View) usedBy(t tenant.ID, function string, number int64) []string {
	s, ok := v.snapshots.get(t)
	if !ok {
		return nil
	}
	var all []string
	for _, name := range s.sorted().pipelines {
		if s.pipelines[name].names(function, number) {
			all = append(all, name)
		}
	}
	return all
}

func showRef(function string, version int64) string {
	if version == 0 {
		return function
	}
	return fmt.Sprintf("%s@%d", function, version)
}
