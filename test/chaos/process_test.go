package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"paddock/internal/testenv"
)

// program is the real program: PADDOCK_BIN, else it is built once per test run.
var program = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("PADDOCK_BIN"); path != "" {
		return path, nil
	}
	return build("paddock", "", "")
})

// build makes the program, with a version and build tags.
func build(name, version, tags string) (string, error) {
	path := filepath.Join(built, name)
	cmd := exec.Command("go", "build", "-trimpath", "-tags", tags, "-ldflags", "-X main.version="+version, "-o", path, "paddock/cmd/paddock")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// built is where programs are built; TestMain removes it.
var built string

// process is one part of the cluster: what starts it, and how it runs now. The faults stop and start it, one at a time.
type process struct {
	name  string
	args  []string
	env   []string
	ready string // the file that it writes when it serves, "" if it writes none
	log   testenv.Log

	bin    string // what starts next
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of Wait, once exited is closed
}

// start runs it; awaitReady says when it serves.
func (p *process) start() error {
	if p.ready != "" {
		if err := os.Remove(p.ready); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	cmd := exec.Command(p.bin, p.args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stderr = &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	// The signal at a parent's death comes when the thread that started it ends: this one belongs to the program as long as it runs.
	started, exited := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	p.cmd, p.exited = cmd, exited
	return nil
}

// startLimit bounds a start. The first one of a controller unpacks the runtime's image.
const startLimit = 3 * time.Minute

func (p *process) awaitReady() error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(startLimit)
	for {
		if b, err := os.ReadFile(p.ready); err == nil && json.Valid(b) {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended before it was ready: %v\n%s", p.name, p.err, p.log.Tail(15))
		case <-late:
			return fmt.Errorf("%s was not ready in time\n%s", p.name, p.log.Tail(15))
		case <-tick.C:
		}
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *process) signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// kill is SIGKILL, and returns when it is dead.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// stop is SIGTERM, which must end well within limit.
func (p *process) stop(limit time.Duration) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	return p.awaitExit(limit)
}

func (p *process) awaitExit(limit time.Duration) error {
	select {
	case <-p.exited:
		if p.err != nil {
			return fmt.Errorf("%s ended with %w\n%s", p.name, p.err, p.log.Tail(15))
		}
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s did not end within %v\n%s", p.name, limit, p.log.Tail(15))
	}
}
