// Package controller owns one pool of containers for one machine: it runs the calls that routers hand it, keeps the
// store's records of its assignments behind the calls, stays a member while it lives, follows what the catalogue says of
// tenants, and shows and steers the pool. It authenticates nobody, admits nobody, and never reads the store on the way of
// a call.
package controller
