package catalog

import (
	"hash/maphash"
	"maps"
	"sync/atomic"
)

// tableShards bounds what a change copies: of a million entries a few hundred.
const tableShards = 4096

// table is a map that many read without locks or allocation while one goroutine changes it through an edit. Readers see a
// shard as it was before an edit or after, never in between.
type table[K comparable, V any] struct {
	seed   maphash.Seed
	shards [tableShards]atomic.Pointer[map[K]V]
}

func newTable[K comparable, V any]() *table[K, V] { return &table[K, V]{seed: maphash.MakeSeed()} }

func (t *table[K, V]) shard(k K) int { return int(maphash.Comparable(t.seed, k) % tableShards) }

func (t *table[K, V]) get(k K) (v V, ok bool) {
	if m := t.shards[t.shard(k)].Load(); m != nil {
		v, ok = (*m)[k]
	}
	return v, ok
}

// all calls f with everything, in no order, until it says no.
func (t *table[K, V]) all(f func(K, V) bool) {
	for i := range t.shards {
		m := t.shards[i].Load()
		if m == nil {
			continue
		}
		for k, v := range *m {
			if !f(k, v) {
				return
			}
		}
	}
}

// edit collects changes of a table until publish. It belongs to one goroutine, and there is one edit at a time.
type edit[K comparable, V any] struct {
	table   *table[K, V]
	touched map[int]map[K]V
}

func (t *table[K, V]) edit() *edit[K, V] { return &edit[K, V]{table: t, touched: map[int]map[K]V{}} }

func (e *edit[K, V]) own(k K) map[K]V {
	i := e.table.shard(k)
	m, ok := e.touched[i]
	if !ok {
		if old := e.table.shards[i].Load(); old != nil {
			m = maps.Clone(*old)
		}
		if m == nil {
			m = map[K]V{}
		}
		e.touched[i] = m
	}
	return m
}

// get reads through the edit's own changes.
func (e *edit[K, V]) get(k K) (V, bool) {
	if m, ok := e.touched[e.table.shard(k)]; ok {
		v, ok := m[k]
		return v, ok
	}
	return e.table.get(k)
}

func (e *edit[K, V]) set(k K, v V) { e.own(k)[k] = v }
func (e *edit[K, V]) del(k K)      { delete(e.own(k), k) }

func (e *edit[K, V]) publish() {
	for i, m := range e.touched {
		e.table.shards[i].Store(&m)
	}
	e.touched = map[int]map[K]V{}
}
