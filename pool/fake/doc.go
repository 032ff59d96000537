// Package fake is a working pool.Engine without processes, for tests of the pool and of what stands on it. A container is
// an agent in this process that speaks the real link over a real socket, or, for tests of timing in a bubble of
// testing/synctest, a link in memory. The code of a call is a small program (see Run) that answers, hangs, crashes, runs
// out of memory or breaks the protocol on demand.
//
// It isolates nothing. It keeps a record of what must never happen, such as two tenants in one container.
package fake
