// Package trace shows that the service's processes touch no path that a tenant can write: it reads what strace saw of their
// file system calls and says of each path what it is. It has only tests; those behind the build tag "trace" run the real
// service under strace, on every engine. What the OCI runtimes do is listed, not judged.
package trace
