package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// service is one that is under measurement: `paddock up`, or the router of a cluster.
type service struct {
	*process
	isolation string
	dir       string
	http      string // host:port
	grpc      string
	key       string
	pid       int
}

// startService starts paddock up in a directory of its own and returns when its first sandbox is warm.
func (b *bench) startService(ctx context.Context, dir, isolation string, flags ...string) (*service, error) {
	args := append([]string{"up", "--data-dir", filepath.Join(dir, "data"), "--isolation", isolation, "--cache-dir", b.cache}, flags...)
	return b.startFront(ctx, dir, isolation, filepath.Join(dir, "data", "operator.key"), args...)
}

// inEach measures a service of each isolation, one after the other, or of the one that was asked for.
func (b *bench) inEach(ctx context.Context, name string, measure func(context.Context, *service) error, flags ...string) error {
	for _, isolation := range []string{"runc", "gvisor"} {
		if b.isolation != "" && b.isolation != isolation {
			continue
		}
		s, err := b.startService(ctx, filepath.Join(b.dir, name+"-"+isolation), isolation, flags...)
		if err != nil {
			return err
		}
		if err := errors.Join(measure(ctx, s), s.stop()); err != nil {
			return err
		}
	}
	return nil
}

// startFront starts a process that serves callers, and returns when it does. key is the file with the operator's key.
func (b *bench) startFront(ctx context.Context, dir, isolation, key string, args ...string) (*service, error) {
	p, err := b.start(dir, args[0], append(args, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--ready-file", filepath.Join(dir, args[0]+".ready"))...)
	if err != nil {
		return nil, err
	}
	var addr struct {
		HTTP, GRPC string
		PID        int
	}
	if err := p.await(ctx, &addr); err != nil {
		return nil, err
	}
	secret, err := os.ReadFile(key)
	if err != nil {
		return nil, err
	}
	return &service{
		process: p, isolation: isolation, dir: dir, http: strings.TrimPrefix(addr.HTTP, "http://"), grpc: addr.GRPC,
		key: strings.TrimSpace(string(secret)), pid: addr.PID,
	}, nil
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
