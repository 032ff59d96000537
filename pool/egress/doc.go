// Package egress is the one way out of a container: a proxy that speaks HTTP CONNECT on a unix socket per container, resolves
// names itself, judges every resolved address, and connects to the very address that it judged. Without rules everything is
// refused. Who asks is known by the socket, never by what is said on it.
//
// It does not look into what passes, follows no redirects, speaks no other method and keeps no connection for a second
// request. The server is a hundred lines over http.ReadRequest instead of a proxy library: the attack surface is one request
// line and a bounded head.
//
// Where a tenant's rules inject a secret it ends the connection itself: net/http reads the requests in it and sends each on over
// TLS, with the secret added. What may be connected to is decided as for all others.
package egress
