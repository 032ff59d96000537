package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// process is one paddock process that the bench has started.
type process struct {
	name   string
	ready  string // the file that it writes when it serves
	log    string
	cmd    *exec.Cmd
	exited chan error
}

// start runs paddock with args; what it says goes to a file in dir.
func (b *bench) start(dir, name string, args ...string) (*process, error) {
	p := &process{name: name, ready: filepath.Join(dir, name+".ready"), log: filepath.Join(dir, name+".log"), exited: make(chan error, 1)}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(b.binary, args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.exited <- p.cmd.Wait() }()
	return p, nil
}

// await returns when the process serves, with what it says of itself then. It must have been started with --ready-file.
func (p *process) await(ctx context.Context, says any) error {
	for deadline := time.Now().Add(10 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if b, err := os.ReadFile(p.ready); err == nil && json.Unmarshal(b, says) == nil {
			return nil
		}
		select {
		case err := <-p.exited:
			return fmt.Errorf("paddock %s ended: %v; see %s", p.name, err, p.log)
		case <-ctx.Done():
			p.cmd.Process.Signal(syscall.SIGTERM)
			return ctx.Err()
		default:
		}
		if time.Now().After(deadline) {
			p.cmd.Process.Kill()
			return fmt.Errorf("paddock %s is not ready; see %s", p.name, p.log)
		}
	}
}

// stop ends it with SIGTERM; an exit code other than 0 is an error.
func (p *process) stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.exited:
		return err
	case <-time.After(2 * time.Minute):
		p.cmd.Process.Kill()
		return fmt.Errorf("paddock %s did not stop", p.name)
	}
}
