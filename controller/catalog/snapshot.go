package catalog

import (
	"cmp"
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
	functions []*FunctionView          // by name
	pipelines map[string]*PipelineView // nil: none
	revision  int64                    // of the newest change that is in it

	names atomic.Pointer[[]string] // of the pipelines, sorted: made when somebody lists them
}

// pipelineNames returns them, sorted. Of two who make them at a time both have the same.
func (s *snapshot) pipelineNames() []string {
	n := s.names.Load()
	if n == nil {
		all := slices.Sorted(maps.Keys(s.pipelines))
		n = &all
		s.names.Store(n)
	}
	return *n
}

// newSnapshot returns a copy of old, which may be nil, to be changed before others see it.
func newSnapshot(old *snapshot) *snapshot {
	s := &snapshot{}
	if old != nil {
		s.functions, s.pipelines, s.revision = slices.Clone(old.functions), maps.Clone(old.pipelines), old.revision
	}
	return s
}

func (s *snapshot) empty() bool { return len(s.functions)+len(s.pipelines) == 0 }

// function returns a function that calls can reach.
func (s *snapshot) function(name string) (*FunctionView, bool) {
	f, ok := s.known(name)
	return f, ok && f.Active != 0
}

// known returns a function of which there is at least a version.
func (s *snapshot) known(name string) (*FunctionView, bool) {
	if i, ok := s.search(name); ok {
		return s.functions[i], true
	}
	return nil, false
}

func (s *snapshot) search(name string) (int, bool) {
	return slices.BinarySearchFunc(s.functions, name, func(f *FunctionView, name string) int { return cmp.Compare(f.Name, name) })
}

// put adds a function, or replaces it. Like drop it is for a snapshot that readers do not see yet.
func (s *snapshot) put(f *FunctionView) {
	if i, ok := s.search(f.Name); ok {
		s.functions[i] = f
	} else {
		s.functions = slices.Insert(s.functions, i, f)
	}
}

func (s *snapshot) drop(name string) {
	if i, ok := s.search(name); ok {
		s.functions = slices.Delete(s.functions, i, i+1)
	}
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
	versions     []*VersionView // by number: most functions have a few, and a map would take more than they do
	proven       []*VersionView // newest first
}

// Version returns a version, the active one for number 0.
func (f *FunctionView) Version(number int64) (*VersionView, bool) {
	if number == 0 {
		number = f.Active
	}
	return f.find(number)
}

func (f *FunctionView) find(number int64) (*VersionView, bool) {
	if i, ok := f.search(number); ok {
		return f.versions[i], true
	}
	return nil, false
}

func (f *FunctionView) search(number int64) (int, bool) {
	return slices.BinarySearchFunc(f.versions, number, func(v *VersionView, n int64) int { return cmp.Compare(v.Number, n) })
}

// put adds a version, or replaces it. Like drop it is for a function that readers do not see yet.
func (f *FunctionView) put(v *VersionView) {
	if i, ok := f.search(v.Number); ok {
		f.versions[i] = v
	} else {
		f.versions = slices.Insert(f.versions, i, v)
	}
}

func (f *FunctionView) drop(number int64) {
	if i, ok := f.search(number); ok {
		f.versions = slices.Delete(f.versions, i, i+1)
	}
}

// Versions returns all versions, newest first.
func (f *FunctionView) Versions() []*VersionView {
	all := slices.Clone(f.versions)
	slices.Reverse(all)
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
		if v, ok := f.find(f.SplitVersion); ok {
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
	for _, v := range slices.Backward(f.versions) {
		if v.Proven {
			f.proven = append(f.proven, v)
		}
	}
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
	first, found := s.search(last)
	if found {
		first++
	}
	var all []*FunctionView
	for _, f := range s.functions[first:] {
		if len(all) == limit {
			break
		}
		if f.Active != 0 {
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
	for _, name := range after(s.pipelineNames(), last) {
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
	for _, name := range s.pipelineNames() {
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
