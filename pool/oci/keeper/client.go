package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Client talks to the keeper of a directory, whichever process that is. Safe for concurrent use.
type Client struct {
	dir  string
	http *http.Client
}

// NewClient returns a client; nothing is connected yet.
func NewClient(dir string) *Client {
	var d net.Dialer
	return &Client{dir: dir, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", SocketPath(dir))
		},
		MaxIdleConnsPerHost: 8,
	}}}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ErrExists: a container of that id is known.
var ErrExists = errors.New("exists")

func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://keeper"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ = io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if resp.StatusCode == http.StatusConflict {
		return nil, fmt.Errorf("keeper: %w", ErrExists)
	}
	return nil, fmt.Errorf("keeper: %s: %s", resp.Status, strings.TrimSpace(string(text)))
}

// Run starts a container. The error is ErrExists if its id is known.
func (c *Client) Run(ctx context.Context, q RunRequest) (RunReply, error) {
	resp, err := c.do(ctx, http.MethodPost, "/run", q)
	if err != nil {
		return RunReply{}, err
	}
	defer resp.Body.Close()
	var r RunReply
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return RunReply{}, fmt.Errorf("keeper: %w", err)
	}
	return r, nil
}

// Watch calls see with what the keeper knows, then synced, then see with each change, until the stream or ctx ends. It
// always returns an error.
func (c *Client) Watch(ctx context.Context, see func(Status), synced func()) error {
	resp, err := c.do(ctx, http.MethodGet, "/events", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var s Status
		if err := lines.Decode(&s); err != nil {
			return fmt.Errorf("keeper: events: %w", err)
		}
		if s.ID == "" {
			synced()
		} else {
			see(s)
		}
	}
}

// Output returns the newest raw output of a container.
func (c *Client) Output(ctx context.Context, id string) ([]byte, error) {
	resp, err := c.do(ctx, http.MethodGet, "/output/"+id, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, OutputBytes))
}

// Forget drops the keeper's record of a container.
func (c *Client) Forget(ctx context.Context, id string) error {
	resp, err := c.do(ctx, http.MethodPost, "/forget/"+id, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Leave tells the keeper to end when nothing is left, and says whether nothing is left now.
func (c *Client) Leave(ctx context.Context) (idle bool, err error) {
	resp, err := c.do(ctx, http.MethodPost, "/leave", nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(resp.Body).Decode(&idle)
	return idle, err
}

// Alive says whether a keeper answers.
func (c *Client) Alive(ctx context.Context) bool {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", SocketPath(c.dir))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// AwaitGone returns when the keeper's process, which was told to leave, has let go of everything.
func (c *Client) AwaitGone(ctx context.Context) error {
	for {
		lock, err := takeLock(lockPath(c.dir), os.O_RDWR)
		if err == nil {
			return lock.Close()
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the keeper stays: %w", ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Spawn starts a keeper that outlives this process (own session, nothing of ours open) and returns when it answers. It
// is no error if another one does by then. The goroutine that reaps it ends with the keeper.
func Spawn(ctx context.Context, command []string, o Options) error {
	if len(command) == 0 {
		return errors.New("start keeper: no command given")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("start keeper: %w", err)
	}
	logFile := filepath.Join(o.Dir, "log")
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("start keeper: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(command[0], append(command[1:len(command):len(command)], o.Args()...)...)
	cmd.Dir, cmd.Stderr, cmd.Stdout = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start keeper: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	c := NewClient(o.Dir)
	defer c.Close()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if c.Alive(ctx) {
			return nil
		}
		select {
		case err := <-ended:
			if c.Alive(ctx) {
				return nil
			}
			text, _ := os.ReadFile(logFile)
			return fmt.Errorf("start keeper: it ended at once: %v: %s", err, bytes.TrimSpace(text))
		case <-ctx.Done():
			return fmt.Errorf("start keeper: it does not answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
