// Package pooltest runs the pool over the real engines with the real node image: warm calls, code that does not stop, that
// eats memory and that forks, freezing, and what a restart leaves. It has only tests; what needs no processes is tested
// beside the pool, over package fake.
package pooltest
