package logs

import (
	"container/list"
	"math/bits"
	"time"

	"paddock/internal/tenant"
)

// Limits bound what is kept of one tenant.
type Limits struct {
	Bytes     int64         // of everything: its lines get half, its calls and their inputs a quarter each
	Retention time.Duration // 0: no limit
	Inputs    int           // how many inputs of calls; 0 = none
}

// Of a tenant's bytes, how they are divided.
const (
	lineShare  = 2
	callShare  = 4
	inputShare = 4
)

// bound is what one tenant may have on one shelf.
type bound struct {
	bytes     int64
	count     int           // 0: no limit
	retention time.Duration // 0: no limit
}

// shelf keeps the newest things of every tenant, within each tenant's bound and a total. Where the total is reached, a tenant
// that holds the most loses its oldest first, the longest silent one of those that hold about as much: what is loud pushes
// out what is loud, never the little that others have. Its owner's lock guards it.
type shelf[T any] struct {
	total  int64
	bytes  int64
	bins   map[tenant.ID]*bin[T]
	sizes  [64]list.List // of *bin, by the magnitude of its bytes; the one that was added to last in front
	weigh  func(*T) int64
	moment func(*T) time.Time
}

// bin is what one tenant has: a ring, oldest first. It exists while it holds something.
type bin[T any] struct {
	id    tenant.ID
	ring  []T
	first int
	n     int
	bytes int64
	bound bound
	size  int // which of shelf.sizes it is in
	place *list.Element
}

func newShelf[T any](total int64, weigh func(*T) int64, moment func(*T) time.Time) *shelf[T] {
	return &shelf[T]{total: total, bins: map[tenant.ID]*bin[T]{}, weigh: weigh, moment: moment}
}

// at is the ith, 0 being the oldest.
func (b *bin[T]) at(i int) *T {
	if i += b.first; i >= len(b.ring) {
		i -= len(b.ring)
	}
	return &b.ring[i]
}

// push takes one in, on memory that grows by doubling as far as the tenant's bound lets it.
func (b *bin[T]) push(v T) {
	if b.n == len(b.ring) {
		grown := make([]T, max(4, 2*b.n))
		for i := range b.n {
			grown[i] = *b.at(i)
		}
		b.ring, b.first = grown, 0
	}
	b.n++
	*b.at(b.n - 1) = v
}

// put keeps v, which weighs weight, and makes room for it.
func (s *shelf[T]) put(t tenant.ID, v T, weight int64, of bound, now time.Time) {
	if of.bytes < weight {
		return
	}
	b := s.bins[t]
	if b == nil {
		b = &bin[T]{id: t}
		s.bins[t] = b
		b.place = s.sizes[0].PushFront(b)
	}
	b.bound = of
	for b.n > 0 && (b.bytes+weight > of.bytes || of.count > 0 && b.n >= of.count) {
		s.dropOldest(b)
	}
	b.push(v)
	b.bytes += weight
	s.bytes += weight
	s.expire(b, now)
	s.settle(b, true)
	for s.bytes > s.total {
		most := s.largest()
		s.dropOldest(most)
		s.settle(most, false)
	}
}

// expire drops what is older than the bin's bound allows.
func (s *shelf[T]) expire(b *bin[T], now time.Time) {
	for b.n > 0 && b.old(s.moment(b.at(0)), now) {
		s.dropOldest(b)
	}
}

func (b *bin[T]) old(t, now time.Time) bool {
	return b.bound.retention > 0 && now.Sub(t) > b.bound.retention
}

// settle puts a bin where bins of its size are, in front of them if it was added to; an empty one goes.
func (s *shelf[T]) settle(b *bin[T], added bool) {
	if b.n == 0 {
		s.sizes[b.size].Remove(b.place)
		delete(s.bins, b.id)
		return
	}
	size := bits.Len64(uint64(b.bytes))
	switch {
	case size != b.size:
		s.sizes[b.size].Remove(b.place)
		b.place = s.sizes[size].PushFront(b)
		b.size = size
	case added:
		s.sizes[size].MoveToFront(b.place)
	}
	if len(b.ring) > 64 && b.n < len(b.ring)/8 {
		shrunk := make([]T, b.n, 2*b.n)
		for i := range b.n {
			shrunk[i] = *b.at(i)
		}
		b.ring, b.first = shrunk[:cap(shrunk)], 0
	}
}

// largest is a bin of those that hold the most, silent the longest. There is one while the shelf holds anything.
func (s *shelf[T]) largest() *bin[T] {
	for i := len(s.sizes) - 1; ; i-- {
		if e := s.sizes[i].Back(); e != nil {
			return e.Value.(*bin[T])
		}
	}
}

func (s *shelf[T]) dropOldest(b *bin[T]) {
	v := b.at(0)
	weight := s.weigh(v)
	var none T
	*v = none // lets go of its texts although the ring stays
	if b.first++; b.first == len(b.ring) {
		b.first = 0
	}
	b.n--
	b.bytes -= weight
	s.bytes -= weight
}

// each calls f with what a tenant has that is not too old, newest first, until f says stop.
func (s *shelf[T]) each(t tenant.ID, now time.Time, f func(*T) (more bool)) {
	b := s.bins[t]
	if b == nil {
		return
	}
	for i := b.n - 1; i >= 0; i-- {
		if v := b.at(i); b.old(s.moment(v), now) || !f(v) {
			return
		}
	}
}

// sweep drops what is too old, and what belongs to tenants that are no more. boundOf is a tenant's bound, false if there is no
// such tenant.
func (s *shelf[T]) sweep(now time.Time, boundOf func(tenant.ID) (bound, bool)) {
	for t, b := range s.bins {
		of, ok := boundOf(t)
		if !ok {
			s.remove(t)
			continue
		}
		b.bound = of
		for b.n > 0 && (b.bytes > of.bytes || of.count > 0 && b.n > of.count) {
			s.dropOldest(b)
		}
		s.expire(b, now)
		s.settle(b, false)
	}
}

// remove forgets a tenant.
func (s *shelf[T]) remove(t tenant.ID) {
	b := s.bins[t]
	if b == nil {
		return
	}
	s.bytes -= b.bytes
	s.sizes[b.size].Remove(b.place)
	delete(s.bins, t)
}
