package hostile

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// control is an attack with one setting weakened, which the oracle must object to. It shows that the line in the table
// can be red.
type control struct {
	attack
	objection string // what one of the oracle's words must contain
}

// The settings that are weakened, one in each group at least. What is mounted can be changed from outside only where the
// kernel is the host's.
var controls = []control{
	{attack{id: "A control", file: "a1-spin.js", ask: 8 * time.Second, want: timeout}, "which is later than"},
	{attack{id: "B control", file: "b2-buffers.js", input: in("how", "some"), limit: 5 * time.Second, want: outOfMemory, before: unlimitedMemory},
		"want out_of_memory"},
	{attack{id: "C control", file: "c8-threads.js", limit: 5 * time.Second, want: answered, after: held(1), before: unlimitedProcesses,
		only: []string{"runc"}}, "broke through"},
	{attack{id: "C limit", file: "c10-pids-crash.js", limit: 10 * time.Second, want: atLimit, before: unlimitedProcesses, only: []string{"gvisor"}},
		"want sandbox_lost/pids"},
	{attack{id: "D control", file: "d1-inodes.js", limit: 5 * time.Second, want: answered, after: held(3), only: []string{"runc"},
		before: inMounts(func(*attempt) error {
			return unix.Mount("", "/tmp", "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "nr_inodes=0")
		})},
		"broke through"},
	{attack{id: "D score", file: "d5-writes.js", limit: 5 * time.Second, want: answered, after: diesFirst, before: likeAnyOther}, "oom_score_adj 0"},
	{attack{id: "E control", file: "e0-echo.js", want: answered, before: tellSecret}, "planted secret"},
	{attack{id: "S control", file: "s1-directory.js", limit: 5 * time.Second, want: answered, after: held(16), only: []string{"runc"},
		before: openDirectory}, "broke through"},
	{attack{id: "S name", file: "s5-identity.js", limit: 10 * time.Second, want: answered, after: held(12), before: mayGo}, "broke through: no claim"},
	{attack{id: "N control", file: "n5-addresses.js", limit: 10 * time.Second, want: answered, after: held(1), policy: everywhere, before: openLoopback},
		"broke through"},
	{attack{id: "H uid", file: "h9-quotas.js", limit: 10 * time.Second, want: answered, after: aloneWithItsID, before: shareID}, "has its user id"},
	{attack{id: "H control", file: "h6-kernel.js", limit: 5 * time.Second, want: answered, after: held(30), only: []string{"runc"},
		before: inMounts(func(*attempt) error { return unix.Unmount("/proc/kallsyms", unix.MNT_DETACH) })}, "broke through: /proc/kallsyms"},
}

// control runs one and keeps whether it was noticed.
func (b *battery) control(c control) {
	at, err := b.prepare(&c.attack)
	if err != nil {
		b.t.Errorf("%v %s: %v", b.engine, c.id, err)
		b.add(result{engine: b.engine, id: c.id, file: c.file, kind: "not run", sort: weakened})
		return
	}
	r := at.execute()
	at.dispose(&r)
	r.sort = weakened
	for _, w := range at.wrong {
		if strings.Contains(w, c.objection) {
			r.wrong = append(r.wrong, w)
		}
	}
	if len(r.wrong) == 0 {
		b.t.Logf("%v %s: the oracle said only %q", b.engine, c.id, at.wrong)
	}
	b.add(r)
}

// setGroup writes a file of the container's control group: the name in v1's hierarchy, or v2's.
func (at *attempt) setGroup(v1, v2, value string) error {
	path := at.host.group.Path()
	controller, _, _ := strings.Cut(v1, ".")
	for _, file := range []string{filepath.Join("/sys/fs/cgroup", controller, path, v1), filepath.Join("/sys/fs/cgroup", path, v2)} {
		if _, err := os.Stat(file); err == nil {
			return os.WriteFile(file, []byte(value), 0)
		}
	}
	return fmt.Errorf("neither %s nor %s in %s", v1, v2, path)
}

func unlimitedMemory(at *attempt) error {
	const most = "2147483648"
	if err := at.setGroup("memory.memsw.limit_in_bytes", "memory.swap.max", most); err != nil {
		return err
	}
	return at.setGroup("memory.limit_in_bytes", "memory.max", most)
}

func unlimitedProcesses(at *attempt) error { return at.setGroup("pids.max", "pids.max", "max") }

// likeAnyOther makes the kernel see nothing special in the container's processes.
func likeAnyOther(at *attempt) error {
	pids, err := at.host.group.Procs()
	for _, pid := range pids {
		if werr := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("0"), 0); werr != nil {
			err = werr
		}
	}
	return err
}

// shareID starts a process on the host with the user id of the container's.
func shareID(at *attempt) error {
	pids, err := at.host.group.Procs()
	if err != nil || len(pids) == 0 {
		return fmt.Errorf("its processes are %v, %v", pids, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d", pids[0]), &st); err != nil {
		return err
	}
	other := exec.Command("sleep", "60")
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: st.Uid, Gid: st.Gid}, Pdeathsig: syscall.SIGKILL}
	if err := other.Start(); err != nil {
		return err
	}
	at.t.Cleanup(func() {
		other.Process.Kill()
		other.Wait()
	})
	return nil
}

// tellSecret gives the attacker what it could not have come by.
func tellSecret(at *attempt) error {
	at.attack.input = in("echo", at.canary.secrets[0])
	return nil
}

// openLoopback allows the attacker's tenant a destination on this machine.
func openLoopback(at *attempt) error {
	policy := map[string]any{"egressPrivate": map[string]any{"hosts": []string{fmt.Sprintf("127.0.0.1:%d", at.net.port)}}}
	return at.service.operator("PATCH", "/v1/tenants/"+at.tenant, "", map[string]any{"policy": policy}, nil)
}

// openDirectory makes the sockets' directory the container's to write to.
func openDirectory(at *attempt) error {
	if err := os.Chmod(filepath.Join(at.service.run, at.service.id, "c", at.container), 0o777); err != nil {
		return err
	}
	return inMounts(func(*attempt) error {
		return unix.Mount("", "/run/paddock", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	})(at)
}

// The main thread stays with the main goroutine: one that enters a container's mounts ends with its goroutine, but the main one
// cannot end, and /proc/self would show the container's mounts from then on.
func init() { runtime.LockOSThread() }

// inMounts runs do where the container's mounts are.
func inMounts(do func(*attempt) error) func(*attempt) error {
	return func(at *attempt) error {
		pids, err := at.host.group.Procs()
		if err != nil || len(pids) == 0 {
			return fmt.Errorf("its processes are %v, %v", pids, err)
		}
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // for good: the thread ends with the goroutine
			done <- enter(pids[0], func() error { return do(at) })
		}()
		return <-done
	}
}

func enter(pid int, do func() error) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return err
	}
	return do()
}
