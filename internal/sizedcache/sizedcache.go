// Package sizedcache holds what was used most recently, up to a number of bytes, over hashicorp's LRU, which counts items. It
// loads nothing by itself and knows no expiry.
package sizedcache

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Cache holds what was used most recently, up to a number of bytes. Safe for concurrent use.
type Cache[K comparable, V any] struct {
	mu    sync.Mutex
	lru   *simplelru.LRU[K, sized[V]]
	bytes int64
	most  int64
}

type sized[V any] struct {
	value V
	bytes int64
}

// New returns an empty Cache that keeps up to most bytes.
func New[K comparable, V any](most int64) *Cache[K, V] {
	c := &Cache[K, V]{most: most}
	// The bound is in bytes; the LRU's own, in items, is never met before it.
	c.lru, _ = simplelru.NewLRU(1<<30, func(_ K, v sized[V]) { c.bytes -= v.bytes })
	return c
}

// Get returns the value of key, and whether it is kept.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.lru.Get(key)
	return v.value, ok
}

// Add puts a value of so many bytes in, over one of the same key. One that is larger than the cache is not kept.
func (c *Cache[K, V]) Add(key K, value V, bytes int64) {
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

// Drop removes what which says.
func (c *Cache[K, V]) Drop(which func(K) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range c.lru.Keys() {
		if which(key) {
			c.lru.Remove(key)
		}
	}
}

// Size says how much is kept.
func (c *Cache[K, V]) Size() (bytes int64, items int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes, c.lru.Len()
}
