// Package client is how Go programs use a Paddock service: they run functions, pipelines and source text, one call at a time
// (Client.Do) or many on one stream (Stream), talk to HTTP-shaped functions (Web), and manage what is deployed (Tenants, Keys,
// Functions, Pipelines, Secrets, Logs).
//
// Failures are *Error, found with errors.As: a kind, whether the code may have run, whose fault it is, the call's id. What the
// service, or this package, knows not to have started is repeated as RetryPolicy says; nothing else ever is.
//
// It keeps no cache, reads no environment and no file, and logs nothing. Operators' calls about pools and the audit log are
// services of paddock/proto/paddock/v1, on the connection that Client.Conn returns.
package client
