package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"paddock/internal/config"
	"paddock/internal/errs"
	"paddock/internal/testenv"
)

func TestExitCodesSayWhoseItIs(t *testing.T) {
	of := func(code codes.Code, fault string) error {
		st, err := status.New(code, "text").WithDetails(&errdetails.ErrorInfo{Metadata: map[string]string{"fault": fault}})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	for _, c := range []struct {
		err  error
		want int
	}{
		{errs.New(errs.UserError, "x"), exitUser},
		{errs.New(errs.Invalid, "x"), exitUsage},
		{errs.New(errs.NoCapacity, "x"), exitPlatform},
		{of(codes.Unknown, "tenant"), exitUser},
		{of(codes.Unknown, "platform"), exitPlatform},
		{of(codes.Unavailable, "caller"), exitUsage},
		{status.Error(codes.NotFound, "x"), exitUsage},
		{status.Error(codes.DeadlineExceeded, "x"), exitUser},
		{status.Error(codes.Unavailable, "connection refused"), exitPlatform},
		{&fs.PathError{Op: "open", Path: "x.js", Err: fs.ErrNotExist}, exitUsage},
		{context.Canceled, exitUsage},
		{errors.New("anything"), exitPlatform},
		{fmt.Errorf("wrapped: %w", usageError("x")), exitUsage},
	} {
		if got := classify(c.err).code; got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestWhatKeptARequestFromTheService(t *testing.T) {
	for said, want := range map[string]string{
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`: "the service was not " +
			"reached: dial tcp 127.0.0.1:1: connect: connection refused; is this where it serves? say where with --url or PADDOCK_URL",
		`connection error: desc = "error reading server preface: EOF"`: "the service was not reached: error reading server preface: EOF; " +
			"if it serves with TLS, use https://",
		`connection error: desc = "transport: authentication handshake failed: tls: \"quoted\""`: "the service was not reached: " +
			`authentication handshake failed: tls: "quoted"; name the authority that signed its certificate with --ca, or use http:// if ` +
			"it serves without TLS",
	} {
		if got := classify(status.Error(codes.Unavailable, said)); got.Error() != want || got.code != exitPlatform {
			t.Errorf("%s\nsays %s", said, got)
		}
	}
}

func TestFlagsOverFileOverDefaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "paddock.yml")
	if err := os.WriteFile(file, []byte("engine: docker\nisolation: runc\npool: {min_ready: 9, create_parallel: 3}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config.Defaults()
	f := pflag.NewFlagSet("up", pflag.ContinueOnError)
	name := bindUpFlags(f, &cfg)
	if err := f.Parse([]string{"--min-ready", "2", "--config", file, "--memory-budget", "3GiB"}); err != nil {
		t.Fatal(err)
	}
	if err := layer(f, &cfg, *name); err != nil {
		t.Fatal(err)
	}
	if cfg.Pool.MinReady != 2 || cfg.Pool.MemoryBudget != 3<<30 {
		t.Errorf("flags lost: %+v", cfg.Pool)
	}
	if cfg.Engine != "docker" || cfg.Pool.CreateParallel != 3 {
		t.Errorf("file lost: %+v", cfg)
	}
	if cfg.HTTP != config.DefaultHTTP {
		t.Errorf("default lost: %+v", cfg)
	}
}

func TestRuntimesAreJudged(t *testing.T) {
	for _, name := range []string{"runsc", "runc"} { // those that the tests run on are current
		v, err := runtimeVersion(t.Context(), testenv.Binary(t, name))
		if err != nil || v.Problem != "" || !strings.HasPrefix(v.Version, name+" ") {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	if _, err := runtimeVersion(t.Context(), "/bin/true"); err == nil {
		t.Error("/bin/true is a runtime")
	}
}

func TestProgressInLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := newProgress(&out, false)
		p.begin("nothing worth a line")
		p.begin("building")
		p.say("half")
		p.say("half") // says nothing new
		time.Sleep(2 * time.Second)
		p.begin("filling")
		p.say("%d/8 warm", 3)
		p.end()
		p.end()
		p.say("late")
		want := "  0.0s  building: half\n  2.0s  building: done (2.0s)\n  2.0s  filling: 3/8 warm\n"
		if out.String() != want {
			t.Errorf("got\n%s\nwant\n%s", out.String(), want)
		}
	})
}

func TestProgressInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out testenv.Log
		p := newProgress(&out, true)
		p.begin("filling")
		time.Sleep(350 * time.Millisecond)
		p.say("1/2 warm")
		p.fail()
		if s := out.String(); strings.Count(s, "\n") != 1 || strings.Count(s, "\r\x1b[K") < 4 || !strings.Contains(s, "1/2 warm") {
			t.Errorf("got %q", s)
		}
	})
}

func TestStrangersTextIsHarmlessOnATerminal(t *testing.T) {
	if got := safe("a\x1b[31mb\u202ec\td\ne"); got != "a�[31mb�c\td\ne" {
		t.Errorf("got %q", got)
	}
}

func TestBriefDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 512 * time.Microsecond: "512µs", 3100 * time.Microsecond: "3.1ms", 2500 * time.Millisecond: "2.5s",
		252 * time.Second: "4m12s", 90 * time.Minute: "1h30m", 72 * time.Hour: "3d",
	} {
		if got := brief(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// Every command has a short text and an example; help of all works.
func TestHelp(t *testing.T) {
	var out testenv.Log
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &out, getenv: func(string) string { return "" }}
	for _, c := range a.rootCommand().Commands() {
		if c.Short == "" {
			t.Errorf("%s has no text", c.CommandPath())
		}
		if code := a.main([]string{c.Name(), "--help"}); code != 0 && !c.Hidden {
			t.Errorf("%s --help exits %d", c.Name(), code)
		}
		if !c.Hidden && c.Example == "" && c.Name() != "version" && c.Name() != "help" && c.Name() != "completion" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, below := range c.Commands() {
			if below.Short == "" {
				t.Errorf("%s has no text", below.CommandPath())
			}
			if below.Example == "" && c.Name() != "completion" {
				t.Errorf("%s has no example", below.CommandPath())
			}
		}
	}
	if code := a.main([]string{"completion", "bash"}); code != 0 || !strings.Contains(out.String(), "__start_paddock") {
		t.Errorf("completion exits %d", code)
	}
}

// A list among the flags comes through as it was given, with a file below it and without.
func TestListsOfFlagsStay(t *testing.T) {
	want := []string{"https://10.0.0.1:2379", "https://10.0.0.2:2379"}
	file := filepath.Join(t.TempDir(), "paddock.yml")
	if err := os.WriteFile(file, []byte("cluster: {etcd: {endpoints: [\"https://10.0.0.9:2379\"]}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"", file} {
		cfg := config.Defaults()
		f := pflag.NewFlagSet("test", pflag.ContinueOnError)
		bindClusterFlags(f, &cfg)
		if err := f.Parse([]string{"--etcd-endpoints", strings.Join(want, ",")}); err != nil {
			t.Fatal(err)
		}
		if err := layer(f, &cfg, from); err != nil || !slices.Equal(cfg.Cluster.Etcd.Endpoints, want) {
			t.Errorf("over %q: %q, %v; want %q", from, cfg.Cluster.Etcd.Endpoints, err, want)
		}
	}
}
