// Package linktest is a working agent in Go for tests: it dials a link's socket as the agent in a container does, obeys the
// protocol, and runs a handler for each call. Misbehaviour is asked for by name (Hang, Stick, Raw …). It compiles and runs
// no code, and nothing outside tests imports it.
package linktest
