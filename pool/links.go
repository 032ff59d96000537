package pool

import (
	"context"
	"errors"
	"log/slog"

	"paddock/pool/link"
)

// listenLinks returns a Config.Listen over package link's unix sockets.
func listenLinks(logger *slog.Logger) func(dir string, uid, gid uint32) (Listener, error) {
	return func(dir string, uid, gid uint32) (Listener, error) {
		l, err := link.Listen(dir, uid, gid)
		if err != nil {
			return nil, err
		}
		return linkListener{l, logger}, nil
	}
}

type linkListener struct {
	*link.Listener
	logger *slog.Logger
}

func (l linkListener) Accept(ctx context.Context, o LinkOptions) (Conn, error) {
	c, err := l.Listener.Accept(ctx, link.Options{Container: o.Container, OnLog: o.OnLog, Adopted: o.Adopted, Logger: l.logger})
	if err != nil {
		return nil, err
	}
	return linkConn{c}, nil
}

type linkConn struct{ *link.Conn }

func (c linkConn) Breached() bool { return errors.Is(c.Err(), link.ErrBreach) }
