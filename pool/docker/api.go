package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"
)

// maxCalls is how many calls to the engine may be under way at once. A daemon that hangs holds that many and no more; the others
// wait for a slot until their own deadlines.
const maxCalls = 32

// defaultHost is where Docker listens unless told otherwise.
const defaultHost = client.DefaultDockerHost

// api is the connection to the engine, with a deadline on every call. Safe for concurrent use.
type api struct {
	client *client.Client
	host   string
	slots  chan struct{}
}

// handshake is the context key of a connection that will be hijacked: the client library answers no deadline between dialing
// and the upgrade, so the connection itself must have one.
type handshake struct{}

func dial(host string) (*api, error) {
	if host == "" {
		host = defaultHost
	}
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return nil, fmt.Errorf("docker engine at %s: only an engine on this machine can be used: give its socket as unix:///path", host)
	}
	var d net.Dialer
	c, err := client.NewClientWithOpts(
		client.WithHost(host),
		client.WithAPIVersionNegotiation(),
		client.WithDialContext(func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := d.DialContext(ctx, "unix", path)
			if err != nil {
				return nil, err
			}
			if deadline, ok := ctx.Value(handshake{}).(time.Time); ok {
				return conn, conn.SetDeadline(deadline)
			}
			return conn, nil
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("docker engine at %s: %w", host, err)
	}
	return &api{client: c, host: host, slots: make(chan struct{}, maxCalls)}, nil
}

// ErrUnavailable: the engine cannot be reached or does not answer in time.
var ErrUnavailable = errors.New("is dockerd running?")

// do runs one call with the shorter of limit and the caller's deadline.
func (a *api) do(ctx context.Context, op string, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil { // also where a slot came free at that moment
		return a.explain(ctx, op, err)
	}
	return a.explain(ctx, op, f(ctx))
}

// explain says what a failed call means to the operator.
func (a *api) explain(ctx context.Context, op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errdefs.IsNotFound(err), errdefs.IsConflict(err):
		return fmt.Errorf("docker %s: %w", op, err)
	case errors.Is(context.Cause(ctx), context.Canceled):
		return fmt.Errorf("docker %s: %w", op, context.Canceled)
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return fmt.Errorf("docker %s: the Docker engine at %s does not answer: %w (%w)", op, a.host, ErrUnavailable, err)
	case client.IsErrConnectionFailed(err), isDial(err):
		return fmt.Errorf("docker %s: the Docker engine at %s cannot be reached: %w (%w)", op, a.host, ErrUnavailable, err)
	default:
		return fmt.Errorf("docker %s: the Docker engine at %s says: %w", op, a.host, err)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func isDial(err error) bool {
	var o *net.OpError
	return errors.As(err, &o) && o.Op == "dial"
}

func (a *api) close() { _ = a.client.Close() }

// HostInfo is what an engine says of itself.
type HostInfo struct {
	Version      string // of dockerd
	APIVersion   string // negotiated
	Runc         string // version, if it says so
	Containerd   string
	CgroupDriver string
	Runtimes     []string
	RunscArgs    []string // what the daemon starts its runtime "runsc" with
	UsernsRemap  bool
	LiveRestore  bool // containers survive a restart of the daemon
}

// Probe asks the engine at host ("" = default) about itself.
func Probe(ctx context.Context, host string) (HostInfo, error) {
	a, err := dial(host)
	if err != nil {
		return HostInfo{}, err
	}
	defer a.close()
	return a.probe(ctx)
}

func (a *api) probe(ctx context.Context) (HostInfo, error) {
	var h HostInfo
	err := a.do(ctx, "info", quickTimeout, func(ctx context.Context) error {
		info, err := a.client.Info(ctx)
		if err != nil {
			return err
		}
		h.Version, h.CgroupDriver, h.LiveRestore = info.ServerVersion, info.CgroupDriver, info.LiveRestoreEnabled
		for name := range info.Runtimes {
			h.Runtimes = append(h.Runtimes, name)
		}
		slices.Sort(h.Runtimes)
		h.RunscArgs = info.Runtimes["runsc"].Args
		for _, o := range info.SecurityOptions {
			h.UsernsRemap = h.UsernsRemap || strings.HasPrefix(o, "name=userns")
		}
		return nil
	})
	if err != nil {
		return h, err
	}
	err = a.do(ctx, "version", quickTimeout, func(ctx context.Context) error {
		v, err := a.client.ServerVersion(ctx)
		for _, c := range v.Components {
			switch c.Name {
			case "runc":
				h.Runc = c.Version
			case "containerd":
				h.Containerd = c.Version
			}
		}
		return err
	})
	h.APIVersion = a.client.ClientVersion()
	return h, err
}
