// Package keeper is the small process that stands between a controller and its OCI containers and outlives the
// controller. It starts the runtime's commands, so that the containers' processes become its children (it is their
// subreaper), records how they ended, and holds their raw output in bounded rings. An engine, also one of a later
// controller, asks it over a root-only unix socket. When nobody holds the controller's lock for a while it kills what is
// left. It knows no tenants, no images and no limits, and makes no bundles.
package keeper

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"paddock/pool/cgroup"
)

// DefaultGrace is how long the controller's lock must be free before the keeper kills everything: long enough for an
// upgrade or a restart, as long as a container's own agent waits for a controller.
const DefaultGrace = 60 * time.Second

// oomScore keeps the kernel from choosing the keeper when memory is short: its death loses wait statuses.
const oomScore = -900

// Options of one keeper. They travel as command-line flags; none is secret.
type Options struct {
	Dir          string        // root-only, the keeper's own: socket, lock, records, FIFOs
	LockFile     string        // the file that the controller holds with flock(2)
	CgroupParent string        // below it are the containers' groups, and nothing else
	Grace        time.Duration // 0 = DefaultGrace
	RunDir       string        // for Sweep; "" = nothing to remove
}

// Sweep removes what a controller that never came back has left besides its containers and control groups, all of which are gone:
// RunDir, Dir within. The controller's lock is held meanwhile, so that none can start.
type Sweep func(Options) error

// Args returns the flags that give Main these options.
func (o Options) Args() []string {
	return []string{"-dir", o.Dir, "-lock", o.LockFile, "-cgroup", o.CgroupParent, "-grace", o.Grace.String(), "-run", o.RunDir}
}

func parseArgs(args []string) (Options, error) {
	var o Options
	set := flag.NewFlagSet("keeper", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&o.Dir, "dir", "", "the keeper's own directory")
	set.StringVar(&o.LockFile, "lock", "", "file that the controller holds with flock(2)")
	set.StringVar(&o.CgroupParent, "cgroup", "", "parent of the containers' control groups")
	set.DurationVar(&o.Grace, "grace", DefaultGrace, "how long the lock must be free before everything is killed")
	set.StringVar(&o.RunDir, "run", "", "what goes, too, when everything was killed")
	if err := set.Parse(args); err != nil {
		return o, fmt.Errorf("keeper: %w", err)
	}
	if o.Grace <= 0 {
		o.Grace = DefaultGrace
	}
	if o.Dir == "" || o.LockFile == "" || o.CgroupParent == "" {
		return o, errors.New("keeper: -dir, -lock and -cgroup are needed; an engine starts this command by itself")
	}
	return o, nil
}

// Main is the keeper's process: it serves until an engine has told it to leave and nothing is left, until it has killed
// everything because no controller came, or until ctx ends. It changes the process (subreaper, OOM score) and reaps every
// child of it: run nothing else in that process. sweep may be nil.
func Main(ctx context.Context, args []string, sweep Sweep) error {
	o, err := parseArgs(args)
	if err != nil {
		return err
	}
	// what whoever started the controller left open must not reach a container
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("keeper: close-on-exec for what it inherited: %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	lock, err := becomeOnly(o.Dir)
	if err != nil {
		return fmt.Errorf("keeper: another keeper serves %s: %w", o.Dir, err)
	}
	defer runtime.KeepAlive(lock) // never closed: free means that the process is gone, see AwaitGone
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keeper: become subreaper: %w", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(oomScore)), 0); err != nil {
		log.Warn("keep the OOM score", "error", err)
	}
	groups, err := cgroup.Detect()
	if err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	k, err := newKeeper(o, groups, log)
	if err != nil {
		return err
	}
	if err := k.serve(ctx); err != nil || !k.abandoned || sweep == nil {
		return err
	}
	return k.sweep(sweep)
}

// serve answers engines until one of the reasons to end (see Main).
func (k *keeper) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reaped := make(chan struct{})
	go func() { defer close(reaped); k.reaper.run(ctx) }()
	path := SocketPath(k.Dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("keeper: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	server := &http.Server{
		Handler: k.routes(), ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	err = k.guard(ctx, served)
	cancel() // ends event streams and the reaper
	err = errors.Join(err, server.Close())
	<-reaped
	return err
}

// guard waits for a reason to end.
func (k *keeper) guard(ctx context.Context, served <-chan error) error {
	tick := time.NewTicker(k.Grace / 60)
	defer tick.Stop()
	var freeSince time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-served:
			return fmt.Errorf("keeper: serve: %w", err)
		case <-k.leave:
		case <-tick.C:
		}
		free := k.unattended()
		switch {
		case free && k.idle():
			return nil
		case !free:
			freeSince = time.Time{}
		case freeSince.IsZero():
			freeSince = time.Now()
		case time.Since(freeSince) >= k.Grace:
			k.log.Warn("no controller for too long: killing all containers", "grace", k.Grace)
			k.abandoned = true
			return k.killAll()
		}
	}
}

// unattended says that no engine is connected and that nobody holds the controller's lock, or that the engine said that it
// leaves for good. The lock is tried only while nobody is connected: trying takes it for an instant.
func (k *keeper) unattended() bool {
	k.mu.Lock()
	engines, left := k.engines, k.left
	k.mu.Unlock()
	if engines > 0 {
		return false
	}
	if left && k.idle() {
		return true
	}
	lock, err := takeLock(k.LockFile, os.O_RDWR)
	if err != nil {
		return errors.Is(err, os.ErrNotExist) // the data directory is gone, the controller too
	}
	lock.Close()
	return true
}

// killAll ends every container of the controller. What stays of them on disk is sweep's, or the next engine's.
func (k *keeper) killAll() error {
	names, err := k.groups.Children(k.CgroupParent)
	if err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, name := range names {
		err = errors.Join(err, k.groups.At(k.CgroupParent+"/"+name).Remove(ctx))
	}
	return err
}

// sweep removes the rest once nothing runs any more. If a controller has come meanwhile it is left to that one.
func (k *keeper) sweep(sweep Sweep) error {
	lock, err := takeLock(k.LockFile, os.O_RDWR)
	switch {
	case err == nil:
		defer lock.Close()
	case errors.Is(err, os.ErrNotExist): // with its data directory the controller is gone for good
	default:
		return nil
	}
	k.groups.At(k.CgroupParent).RemoveEmpty()
	if above := filepath.Dir(k.CgroupParent); above != "." { // all controllers' groups: only when this was the last one
		k.groups.At(above).RemoveEmpty()
	}
	return sweep(k.Options)
}

// SocketPath is where the keeper of dir listens.
func SocketPath(dir string) string { return filepath.Join(dir, "sock") }

// becomeOnly takes the directory's lock. Whoever waits for the last keeper's end takes it for an instant, too; and a
// keeper that has stopped answering holds it until its process is gone, which on a busy machine takes a while.
func becomeOnly(dir string) (lock *os.File, err error) {
	client := NewClient(dir)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if lock, err = takeLock(lockPath(dir), os.O_RDWR|os.O_CREATE); err == nil {
			return lock, nil
		}
		if client.Alive(context.Background()) || time.Now().After(end) {
			return nil, err
		}
	}
}

func lockPath(dir string) string { return filepath.Join(dir, "lock") }

// takeLock takes a file's flock(2) without waiting; closing the file gives it back.
func takeLock(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
