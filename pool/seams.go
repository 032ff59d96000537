package pool

import (
	"context"

	"paddock/internal/call"
	"paddock/internal/tenant"
)

// Listener waits for one container's agent.
type Listener interface {
	// Accept takes one connection, checks its HELLO and sends WELCOME; then nobody can connect any more.
	Accept(ctx context.Context, o LinkOptions) (Conn, error)
	Close() error
}

// LinkOptions is what a connection must know of its container.
type LinkOptions struct {
	Container ContainerID
	OnLog     func(call.LogLine) // never blocks
	Adopted   bool               // it was a former process's, and a tenant's: nobody here knows which secrets went in
}

// Conn is the pool's view of a link; package link's is the real one, and pool/fake has one in memory so that timing can be
// tested in a bubble of testing/synctest. Safe for concurrent use.
type Conn interface {
	// Bind names the tenant that the container now belongs to. Once.
	Bind(t tenant.ID, p *tenant.Policy)
	// Do runs one call. It returns at once when the deadline passes or ctx ends. settled is called exactly once, when the
	// code of the call has really ended or the connection is gone, and never under a lock that Do needs.
	Do(ctx context.Context, req *call.Request, sink call.Sink, settled func()) (*call.Result, error)
	// Done is closed when the connection is over; Breached then tells hostile bytes from plain loss, and Err says more.
	Done() <-chan struct{}
	Err() error
	Breached() bool
	// Tainted is closed when the container must not be used any more; its calls may finish. Stuck is closed as well, then or
	// later, when its event loop does not answer: kill it now.
	Tainted() <-chan struct{}
	Stuck() <-chan struct{}
	// Ping asks whether the agent's event loop turns.
	Ping(ctx context.Context) error
	Close() error
}

// Loader is a Conn that can be given code ahead of the first call.
type Loader interface {
	Load(ctx context.Context, code call.Code) error
}

// Door is a container's way out. It denies everything until it has rules.
type Door interface {
	SetRules(t tenant.ID, p *tenant.Policy) error
	// SetSecrets replaces the values that are added to requests on their way out.
	SetSecrets(values map[string]string)
	CloseTunnels()
	Close() error
}

// callNamer is a Door that tells whose doing it is what goes out.
type callNamer interface {
	// NameCalls sets what names the call that runs in the container, "" if that is not clear.
	NameCalls(callOf func() call.ID)
}

// noDoor stands where there is no egress at all.
type noDoor struct{}

func (noDoor) SetRules(tenant.ID, *tenant.Policy) error { return nil }
func (noDoor) SetSecrets(map[string]string)             {}
func (noDoor) CloseTunnels()                            {}
func (noDoor) Close() error                             { return nil }
