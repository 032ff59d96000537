// Command demo is Paddock's main job, start to end, on a fresh data directory: it starts `paddock up` on free ports and
// then, with the command line, curl and a gRPC client, runs a health check against a small web application (sound, then broken
// on purpose), a customer's rule on a real user object, a function over gRPC, and hostile scripts beside a well-behaved
// tenant. Every act asserts what it shows; the exit code is 0 only if all held.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"paddock/examples/webapp"
)

func main() {
	d := &demo{started: time.Now()}
	flag.StringVar(&d.binary, "paddock", "bin/paddock", "the paddock binary")
	flag.StringVar(&d.engine, "engine", "oci", "oci or docker")
	flag.StringVar(&d.isolation, "isolation", "gvisor", "gvisor or runc")
	flag.StringVar(&d.cache, "cache", ".cache/downloads", "directory that keeps downloads from run to run")
	flag.StringVar(&d.examples, "examples", "examples", "directory of the example code")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := d.run(ctx); err != nil {
		fmt.Printf("\ndemo: FAILED after %s: %v\n", since(d.started), err)
		os.Exit(1)
	}
	fmt.Printf("\ndemo: all %d checks held (%s, %s), %s in all\n", d.checks, d.engine, d.isolation, since(d.started))
}

// demo is one run of the whole story.
type demo struct {
	binary, engine, isolation, examples, cache string

	started time.Time
	checks  int
	dir     string
	up      *server
	app     *webapp.App
	appAddr string // host:port as the checks are told
}

func (d *demo) run(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "paddock-demo-"); err != nil {
		return err
	}
	defer os.RemoveAll(d.dir)
	if err := os.Chmod(d.dir, 0o711); err != nil { // sandboxes pass through it to their root file system
		return err
	}
	if err := d.startApp(); err != nil {
		return err
	}
	d.title("Starting paddock up (%s, %s) on free ports", d.engine, d.isolation)
	if d.up, err = startServer(ctx, d.binary, d.dir, d.cache, d.engine, d.isolation); err != nil {
		return err
	}
	defer func() {
		d.title("Stopping")
		if stopErr := d.up.stop(); err == nil && stopErr != nil {
			err = stopErr
		} else if stopErr == nil {
			d.say("SIGTERM: drained, exit code 0")
		}
	}()
	for _, act := range []func(context.Context) error{d.healthCheck, d.rule, d.grpcCall, d.hostile} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// startApp serves the shop on loopback; sandboxes reach it only because an operator lists it by name.
func (d *demo) startApp() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.app = webapp.New("jane.doe@acme.example", "Jane", "correct horse battery staple")
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	d.appAddr = net.JoinHostPort("localhost", port)
	go http.Serve(ln, d.app) // ends with the process
	return nil
}

func (d *demo) title(format string, args ...any) {
	fmt.Printf("\n== %s  [%s]\n", fmt.Sprintf(format, args...), since(d.started))
}

func (d *demo) say(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

// check is one assertion: it prints what held, or returns what did not.
func (d *demo) check(ok bool, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if !ok {
		return fmt.Errorf("not so: %s", what)
	}
	d.checks++
	d.say("ok: %s", what)
	return nil
}

func (d *demo) example(parts ...string) string {
	return filepath.Join(append([]string{d.examples}, parts...)...)
}

func since(t time.Time) string { return time.Since(t).Round(10 * time.Millisecond).String() }

// lineWith returns the line of s that has what in it, from there on.
func lineWith(s, what string) string {
	for line := range strings.Lines(s) {
		if at := strings.Index(line, what); at >= 0 {
			return strings.TrimSpace(line[at:])
		}
	}
	return ""
}
