// Package link is the host's side of the one connection between a controller and the agent in a container: it listens,
// checks the agent's greeting, sends code and calls, hands back answers, meters every byte the agent may send, and ends the
// connection at the first breach of the protocol (runtimes/link.md). Everything it reads is hostile.
//
// It does not know what a container is, does not kill anything and repeats no call: it says that a connection is over or
// tainted, and why, and the pool acts.
package link
