// Package simulate runs a fleet that no machine could hold: a thousand controllers and a million tenants, in virtual time, in one
// process. Real are the router with its admission, the catalogue's view, routing and placement, the calls on the wire between router
// and controller as messages, and the writer of assignment records; modelled are the machines (containers are counted, calls
// take a while) and the store. It has only tests: a small fleet with the others, the large one by `make simulate`, which prints
// what docs/scale.md says. What is drawn follows from the seed; what happens at one instant happens in any order.
package simulate
