package catalog

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// sizedCache holds what was used most recently, up to a number of bytes. Safe for concurrent use.
type sizedCache[K comparable, V any] struct {
	mu    sync.Mutex
	lru   *simplelru.LRU[K, sized[V]]
	bytes int64
	most  int64
}

type sized[V any] struct {
	value V
	bytes int64
}

func newSizedCache[K comparable, V any](most int64) *sizedCache[K, V] {
	c := &sizedCache[K, V]{most: most}
	// The bound is in bytes; the LRU's own, in items, is never met before it.
	c.lru, _ = simplelru.NewLRU(1<<30, func(_ K, v sized[V]) { c.bytes -= v.bytes })
	return c
}

func (c *sizedCache[K, V]) get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.lru.Get(key)
	return v.value, ok
}

// add puts a value of so many bytes in, over one of the same key. One that is larger than the cache is not kept.
func (c *sizedCache[K, V]) add(key K, value V, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lru.Remove(key)
	if bytes > c.most {
		return
	}
	c.lru.Add(key, sized[V]{value, bytes})
	c.bytes += bytes
	for c.bytes > c.most {
		c.lru.RemoveOldest()
	}
}

// drop removes what which says.
func (c *sizedCache[K, V]) drop(which func(K) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range c.lru.Keys() {
		if which(key) {
			c.lru.Remove(key)
		}
	}
}

func (c *sizedCache[K, V]) size() (bytes int64, items int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes, c.lru.Len()
}
