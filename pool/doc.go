// Package pool keeps the containers of one controller: warm ones that belong to nobody and assigned ones that belong to
// one tenant until they are destroyed. It makes, binds, freezes, recycles and sweeps them, and runs calls on them over
// their links. It knows neither etcd nor the public API, and it does not authenticate anybody.
package pool
