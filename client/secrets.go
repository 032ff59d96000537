package client

import (
	"context"
	"errors"
	"io"
	"iter"

	pb "paddock/proto/paddock/v1"
)

// Secrets manages a tenant's secrets, with a tenant-admin's key. Nothing gives a value back.
type Secrets struct{ c *Client }

// Secrets manages secrets.
func (c *Client) Secrets() Secrets { return Secrets{c} }

// Set makes a secret or replaces its value. function "" gives it to all of the tenant's functions. The next call sees it.
func (s Secrets) Set(ctx context.Context, name, function, value string) (*Secret, error) {
	return management(ctx, s.c, pb.NewCatalogClient(s.c.conn).SetSecret, &pb.SetSecretRequest{Name: name, Function: function, Value: value})
}

// List lists secrets without their values.
func (s Secrets) List(ctx context.Context) ([]*Secret, error) {
	res, err := management(ctx, s.c, pb.NewCatalogClient(s.c.conn).ListSecrets, &pb.ListSecretsRequest{})
	return res.GetSecrets(), err
}

// Delete removes a secret.
func (s Secrets) Delete(ctx context.Context, name, function string) error {
	_, err := management(ctx, s.c, pb.NewCatalogClient(s.c.conn).DeleteSecret, &pb.DeleteSecretRequest{Name: name, Function: function})
	return err
}

// Logs reads what a tenant's code wrote and the calls that it had.
type Logs struct{ c *Client }

// Logs reads logs and calls.
func (c *Client) Logs() Logs { return Logs{c} }

// Filters of logs and calls; the zero value is the newest 100, of all.
type (
	// Tail says which lines, and whether to wait for more.
	Tail = pb.TailRequest
	// CallFilter says which calls.
	CallFilter = pb.ListCallsRequest
)

// Tail returns kept lines, oldest first, and with follow live ones until ctx ends; it ends with the first error. A line whose
// missing is set is none: it names a controller whose lines are missing from there on.
func (l Logs) Tail(ctx context.Context, which *Tail) iter.Seq2[*LogLine, error] {
	return func(yield func(*LogLine, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		// Lines are handed out as they come, so what was lost on the way cannot be asked for again here.
		stream, err := management(ctx, l.c, pb.NewLogsClient(l.c.conn).Tail, which)
		if err != nil {
			yield(nil, err)
			return
		}
		for {
			line, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, errorOfStatus(err, true))
				return
			}
			if !yield(line, nil) {
				return
			}
		}
	}
}

// Calls returns the last calls that fit, newest first, and the controllers whose part is missing.
func (l Logs) Calls(ctx context.Context, which *CallFilter) (calls []*CallRecord, missing []string, err error) {
	res, err := management(ctx, l.c, pb.NewLogsClient(l.c.conn).ListCalls, which)
	return res.GetCalls(), res.GetMissing(), err
}

// Call returns one call, and its input if that was recorded.
func (l Logs) Call(ctx context.Context, id string) (call *CallRecord, input []byte, err error) {
	res, err := management(ctx, l.c, pb.NewLogsClient(l.c.conn).GetCall, &pb.GetCallRequest{Id: id})
	return res.GetCall(), res.GetInput(), err
}
