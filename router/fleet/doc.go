// Package fleet is the router's Nodes over controllers on several machines: it follows which are registered, holds a connection
// to each, probes them every second, and says for a call who is asked first and who next. It binds nothing: a controller that
// is asked by mistake refuses by its latch, and the call goes elsewhere. It knows nothing of credentials or limits.
package fleet
