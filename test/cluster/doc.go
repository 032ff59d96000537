// Package cluster tries random histories of several controllers and routers over one store: real controllers with their pools, real
// routers, the wire between them, and a store in memory, all in virtual time; only the containers are fake. It has only tests.
// What needs real processes and real sandboxes is in test/chaos.
package cluster
