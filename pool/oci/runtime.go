package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/oci/keeper"
)

// gvisorFlags harden runsc. Many are its defaults; they stand here so that a changed default changes nothing.
var gvisorFlags = []string{
	"--platform=systrap",
	"--network=none",
	"--host-uds=open", // connect to the host's sockets (the link), never make any
	"--host-fifo=none",
	"--directfs=true", // with a user namespace; without directfs all sandboxes would share one host uid
	"--overlay2=none", // the default writes into the bundle
	"--file-access=exclusive",
	"--file-access-mounts=shared", // the link directory changes under the container
	"--oci-seccomp=true",
	"--net-raw=false",
	"--allow-suid=false",
	"--allow-flag-override=false",
	"--watchdog-action=panic",
	"--dcache=256", // each entry holds host files open: with the default, 1000 for each mount, loading modules alone met fdlimit
	"--fdlimit=2048",
	"--debug=false", // log volume would be the attacker's to choose
	"--strace=false",
	"--nvproxy=false",
	"--tpuproxy=false",
	"--rootless=false",
	"--host-settings=ignore",
}

// runtimeBinary builds the command lines of one OCI runtime.
type runtimeBinary struct {
	path      string
	isolation tenant.Isolation
	root      string // its state directory
}

func (r runtimeBinary) global(logFile string) []string {
	argv := []string{r.path, "--root", r.root, "--log", logFile, "--log-format", "json"}
	if r.isolation == tenant.IsolationGVisor {
		argv = append(argv, gvisorFlags...)
	}
	return argv
}

// run creates and starts in one go, half the price of doing it in two; limits are read back before anything of a tenant
// goes in.
func (r runtimeBinary) run(b bundle) []string {
	return append(r.global(b.logFile()), "run", "--detach", "--bundle", b.dir, "--pid-file", b.pidFile(), string(b.id))
}

// remove is called only when nothing of the container runs any more. runc keeps nothing but files and control groups,
// which the caller removes anyway; runsc's own command knows better what else there may be.
func (r runtimeBinary) remove(ctx context.Context, b bundle) error {
	if r.isolation == tenant.IsolationRunc {
		return nil
	}
	logFile := b.logFile()
	if _, err := os.Stat(b.dir); err != nil {
		logFile = os.DevNull
	}
	return command(ctx, append(r.global(logFile), "delete", "--force", string(b.id)))
}

// command runs a runtime command in its own process group and kills the group when ctx ends.
func command(ctx context.Context, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var text bytes.Buffer
	cmd.Dir, cmd.Env = "/", keeper.Environment()
	cmd.Stdout, cmd.Stderr = &text, &text
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", argv[0], argv[len(argv)-1], errors.Join(err, ctx.Err()), clip(text.String()))
	}
	return nil
}

// lastError finds what the runtime said last in its JSON log: for the operator.
func lastError(logFile string) string {
	text, err := os.ReadFile(logFile)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		var line struct{ Level, Msg string }
		if json.Unmarshal([]byte(lines[i]), &line) == nil && (line.Level == "error" || line.Level == "fatal") {
			return clip(line.Msg)
		}
	}
	return clip(lines[len(lines)-1])
}

func clip(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 1000 {
		s = s[:1000] + "…"
	}
	return s
}

// list names the containers of which the runtime has state, by its directory: its own list command hangs when a sandbox is
// stopped, and costs a process.
func (r runtimeBinary) list() ([]string, error) {
	entries, err := os.ReadDir(r.root)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		// runc: <id>/; runsc: <id>_sandbox:<id>.state, .lock, runsc-<id>.sock
		id, _, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "runsc-"), ".sock"), "_")
		ids = append(ids, id)
	}
	return ids, nil
}

// has says whether the runtime has state of a container.
func (r runtimeBinary) has(id pool.ContainerID) bool {
	ids, err := r.list()
	return err != nil || slices.Contains(ids, string(id))
}

// removeByHand deletes the runtime's state of a container that does not run any more: what its own command cannot remove, of
// a start that was broken off.
func (r runtimeBinary) removeByHand(id pool.ContainerID) error {
	paths, err := filepath.Glob(filepath.Join(r.root, "*"+string(id)+"*"))
	if err != nil {
		return err
	}
	for _, p := range paths {
		err = errors.Join(err, os.RemoveAll(p))
	}
	return err
}
