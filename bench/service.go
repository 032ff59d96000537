package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// service is one `paddock up` under measurement.
type service struct {
	isolation string
	cmd       *exec.Cmd
	exited    chan error
	dir       string
	http      string // host:port
	grpc      string
	key       string
	pid       int
}

// startService starts paddock up in a directory of its own and returns when its first sandbox is warm.
func (b *bench) startService(ctx context.Context, dir, isolation string, flags ...string) (*service, error) {
	s := &service{isolation: isolation, dir: dir, exited: make(chan error, 1)}
	ready := filepath.Join(dir, "ready.json")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "up.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := append([]string{"up", "--data-dir", filepath.Join(dir, "data"), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
		"--isolation", isolation, "--ready-file", ready, "--cache-dir", b.cache}, flags...)
	s.cmd = exec.Command(b.binary, args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { s.exited <- s.cmd.Wait() }()
	var addr struct {
		HTTP, GRPC string
		PID        int
	}
	for deadline := time.Now().Add(10 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if b, err := os.ReadFile(ready); err == nil && json.Unmarshal(b, &addr) == nil {
			break
		}
		select {
		case err := <-s.exited:
			return nil, fmt.Errorf("paddock up (%s) ended: %v; see %s", isolation, err, log.Name())
		case <-ctx.Done():
			s.cmd.Process.Signal(syscall.SIGTERM)
			return nil, ctx.Err()
		default:
		}
		if time.Now().After(deadline) {
			s.cmd.Process.Kill()
			return nil, fmt.Errorf("paddock up (%s) is not ready; see %s", isolation, log.Name())
		}
	}
	key, err := os.ReadFile(filepath.Join(dir, "data", "operator.key"))
	if err != nil {
		return nil, err
	}
	s.http, s.grpc = strings.TrimPrefix(addr.HTTP, "http://"), addr.GRPC
	s.key, s.pid = strings.TrimSpace(string(key)), addr.PID
	return s, nil
}

// stop ends it with SIGTERM; an exit code other than 0 is an error.
func (s *service) stop() error {
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.exited:
		return err
	case <-time.After(2 * time.Minute):
		s.cmd.Process.Kill()
		return fmt.Errorf("paddock up (%s) did not stop", s.isolation)
	}
}

// manage makes one management call with the operator's key.
func (s *service) manage(method, path, tenant string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://"+s.http+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	if tenant != "" {
		req.Header.Set("Paddock-Tenant", tenant)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		return fmt.Errorf("%s %s: %d %s %w", method, path, res.StatusCode, b, err)
	}
	if out != nil {
		return json.Unmarshal(b, out)
	}
	return nil
}

// poolStatus is the part of PoolStatus that the bench looks at.
type poolStatus struct {
	Creating, Ready, Assigned, Frozen, Draining, Waiting int
}

// settle waits until the pool has ready warm containers, makes none and, with quiet, drains none.
func (s *service) settle(ready int) error {
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		var p poolStatus
		if err := s.manage("GET", "/v1/pool", "", nil, &p); err != nil {
			return err
		}
		if p.Ready >= ready && p.Creating == 0 && p.Draining == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the pool (%s) does not settle: %+v", s.isolation, p)
		}
	}
}

// tenant creates one and, if asked, returns a key that may invoke.
func (s *service) tenant(id string, policy map[string]any) error {
	return s.manage("POST", "/v1/tenants", "", map[string]any{"id": id, "policy": policy}, nil)
}

func (s *service) invokeKey(tenant string) (string, error) {
	var made struct{ Secret string }
	err := s.manage("POST", "/v1/keys", "", map[string]any{"tenant": tenant, "role": "invoke"}, &made)
	return made.Secret, err
}

func (s *service) deploy(tenant, name, source string) error {
	return s.manage("PUT", "/v1/functions/"+name, tenant, map[string]any{"source": []byte(source)}, nil)
}
