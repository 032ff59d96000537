package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// server is a running `paddock up`.
type server struct {
	binary string
	cmd    *exec.Cmd
	exited chan error
	url    string // http://127.0.0.1:port
	grpc   string // 127.0.0.1:port
	key    string // the operator's
}

// startServer starts paddock up and returns when its first sandbox is warm. What it prints is shown.
func startServer(ctx context.Context, binary, dir, cache, engine, isolation string) (*server, error) {
	data, ready := filepath.Join(dir, "data"), filepath.Join(dir, "ready.json")
	cache, err := filepath.Abs(cache)
	if err != nil {
		return nil, err
	}
	s := &server{binary: binary, exited: make(chan error, 1)}
	s.cmd = exec.Command(binary, "up", "--data-dir", data, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
		"--engine", engine, "--isolation", isolation, "--ready-file", ready, "--cache-dir", cache)
	logFile, err := os.Create(filepath.Join(dir, "up.log"))
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	s.cmd.Stdout, s.cmd.Stderr = &indent{}, logFile
	// A Ctrl-C at the terminal is the demo's to handle: it stops the server itself.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { s.exited <- s.cmd.Wait() }()
	var addr struct {
		HTTP, GRPC string
		PID        int
	}
	if err := s.awaitFile(ctx, ready, &addr); err != nil {
		s.cmd.Process.Signal(syscall.SIGTERM)
		log, _ := os.ReadFile(logFile.Name())
		return nil, fmt.Errorf("%w; its log ends:\n%s", err, lastLines(string(log), 15))
	}
	key, err := os.ReadFile(filepath.Join(data, "operator.key"))
	if err != nil {
		return nil, err
	}
	s.url, s.grpc, s.key = addr.HTTP, addr.GRPC, strings.TrimSpace(string(key))
	if !strings.Contains(s.url, "://") {
		s.url = "http://" + s.url
	}
	return s, nil
}

func (s *server) awaitFile(ctx context.Context, path string, into any) error {
	// Building the runtime image for the first time downloads Node.js and the curated modules.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, into) == nil {
			return nil
		}
		select {
		case err := <-s.exited:
			s.exited <- err
			return fmt.Errorf("paddock up ended before it was ready: %v", err)
		case <-ctx.Done():
			return fmt.Errorf("paddock up is not ready: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// stop sends SIGTERM and wants exit code 0 within a minute.
func (s *server) stop() error {
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.exited:
		if err != nil {
			return fmt.Errorf("paddock up after SIGTERM: %w", err)
		}
		return nil
	case <-time.After(time.Minute):
		s.cmd.Process.Kill()
		return fmt.Errorf("paddock up did not stop within a minute of SIGTERM")
	}
}

// cli runs one paddock command as the operator and returns its standard output.
func (s *server) cli(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Env = append(os.Environ(), "PADDOCK_URL="+s.url, "PADDOCK_KEY="+s.key, "PADDOCK_GRPC="+s.grpc)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("paddock %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// tenantKey creates a tenant's key of a role and returns its secret.
func (s *server) tenantKey(ctx context.Context, tenant, role string) (string, error) {
	out, err := s.cli(ctx, "keys", "create", "--tenant", tenant, "--role", role, "--json")
	if err != nil {
		return "", err
	}
	var made struct{ Secret string }
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Secret == "" {
		return "", fmt.Errorf("keys create answered %q", out)
	}
	return made.Secret, nil
}

// indent passes lines on, set in by three spaces.
type indent struct{ midLine bool }

func (w *indent) Write(p []byte) (int, error) {
	for _, line := range bytes.SplitAfter(p, []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		if !w.midLine {
			os.Stdout.WriteString("   ")
		}
		os.Stdout.Write(line)
		w.midLine = line[len(line)-1] != '\n'
	}
	return len(p), nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
