package link

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"paddock/internal/cleanup"
)

// SocketName is the socket's name in its directory.
const SocketName = "link"

// Listener waits for the one agent of one container. Who connects is the container because only the container sees the
// socket; credentials of the peer mean nothing (they differ by engine) and are not looked at.
type Listener struct {
	ln   *net.UnixListener
	path string
	once sync.Once
}

// Listen makes dir/link, mode 0600, owned by uid and gid. The socket is made under another name and renamed, so that it
// replaces what a former process left and is never there half made. dir is the host's: nothing in it can be written from
// inside the container.
func Listen(dir string, uid, gid uint32) (*Listener, error) {
	ln, err := ListenUnix(dir, SocketName, uid, gid)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	return &Listener{ln: ln, path: filepath.Join(dir, SocketName)}, nil
}

// ListenUnix makes the listening socket dir/name as Listen does. Closing it leaves the name.
func ListenUnix(dir, name string, uid, gid uint32) (*net.UnixListener, error) {
	var undo cleanup.Stack
	defer undo.Clean()
	var salt [3]byte
	rand.Read(salt[:])
	tmp := filepath.Join(dir, "."+hex.EncodeToString(salt[:]))
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: tmp})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	undo.Add(func() { ln.Close(); os.Remove(tmp) })
	if err := os.Chmod(tmp, 0o600); err != nil {
		return nil, err
	}
	if err := os.Lchown(tmp, int(uid), int(gid)); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return nil, err
	}
	undo.Release()
	return ln, nil
}

// Accept waits for the agent, closes the listening socket, and returns the connection once HELLO was checked and WELCOME
// sent. It can succeed once; after an error the Listener is closed as well. The caller closes the Conn.
func (l *Listener) Accept(ctx context.Context, o Options) (*Conn, error) {
	o = o.withDefaults()
	stop := context.AfterFunc(ctx, func() { l.ln.SetDeadline(time.Unix(1, 0)) })
	nc, err := l.ln.AcceptUnix()
	stop()
	l.Close()
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("link: waiting for the agent: %w", err)
	}
	c, err := handshake(ctx, nc, o)
	if err != nil {
		nc.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("link: greeting: %w", err)
	}
	return c, nil
}

// Close stops listening and removes the socket. Idempotent; a waiting Accept returns.
func (l *Listener) Close() error {
	var err error
	l.once.Do(func() {
		err = l.ln.Close()
		if rerr := os.Remove(l.path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	})
	return err
}

// handshake reads HELLO, answers WELCOME and starts the connection.
func handshake(ctx context.Context, nc *net.UnixConn, o Options) (*Conn, error) {
	nc.SetDeadline(time.Now().Add(o.HandshakeTimeout))
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	hello, rest, err := readHello(nc)
	if err != nil {
		return nil, err
	}
	head, err := json.Marshal(o.welcome())
	if err != nil {
		return nil, err
	}
	if _, err := nc.Write(AppendFrame(nil, TypeWelcome, 0, 0, head, nil)); err != nil {
		return nil, err
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	nc.SetDeadline(time.Time{})
	return newConn(nc, o, hello, rest)
}

// readHello returns the greeting and the bytes that came after it.
func readHello(nc net.Conn) (h Hello, rest []byte, err error) {
	buf := make([]byte, 4<<10)
	have := 0
	for {
		f, n, err := Decode(buf[:have], Agent)
		if err != nil {
			return h, nil, err
		}
		if n > 0 {
			if f.Type != TypeHello || f.Stream != 0 {
				return h, nil, breach("%v on stream %d before HELLO", f.Type, f.Stream)
			}
			if err := parseHead(TypeHello, f.Head, &h); err != nil {
				return h, nil, err
			}
			return h.checked(buf[n:have])
		}
		if have == len(buf) {
			return h, nil, breach("a HELLO of more than %d bytes", len(buf))
		}
		n, rerr := nc.Read(buf[have:])
		if have += n; rerr != nil && n == 0 {
			return h, nil, rerr
		}
	}
}

func (h Hello) checked(rest []byte) (Hello, []byte, error) {
	if h.Protocol != Protocol {
		return h, nil, fmt.Errorf("%w: the agent speaks protocol %d, this host speaks %d", ErrVersion, h.Protocol, Protocol)
	}
	const most = 256
	if len(h.Runtime) > most || len(h.Version) > most || len(h.Agent) > most {
		return h, nil, breach("HELLO with overlong fields")
	}
	return h, rest, nil
}

// ErrVersion is what Accept's error wraps when the agent speaks a protocol that this host does not.
var ErrVersion = errors.New("protocol version")
