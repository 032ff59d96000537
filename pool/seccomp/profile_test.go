package seccomp

import (
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestProfileAllowsNothingDangerous(t *testing.T) {
	// each of these reached another process, the kernel's attack surface or a per-uid quota somewhere, once
	dangerous := []string{
		"ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_open", "pidfd_getfd", "pidfd_send_signal",
		"memfd_create", "memfd_secret", "name_to_handle_at", "open_by_handle_at", "mknod", "mknodat", "chroot", "setns",
		"unshare", "mount", "umount2", "move_mount", "open_tree", "fsopen", "fsmount", "fsconfig", "fspick",
		"mount_setattr", "pivot_root", "keyctl", "add_key", "request_key", "bpf", "perf_event_open", "userfaultfd",
		"io_uring_setup", "io_uring_enter", "io_uring_register", "inotify_init", "inotify_init1", "inotify_add_watch",
		"fanotify_init", "fanotify_mark", "shmget", "semget", "msgget", "mq_open", "personality", "modify_ldt",
		"vmsplice", "splice", "tee", "setuid", "setgid", "setresuid", "setgroups", "sched_setaffinity",
		"sched_setscheduler", "sched_setattr", "ioprio_set", "setpriority", "adjtimex", "clock_settime", "clock_adjtime",
		"settimeofday", "landlock_create_ruleset", "seccomp", "io_setup", "io_submit", "mbind", "set_mempolicy",
		"setxattr", "fsetxattr", "lsetxattr", "sync", "syncfs", "fallocate", "execveat", "kexec_load", "init_module",
		"finit_module", "delete_module", "reboot", "swapon", "iopl", "ioperm", "quotactl", "syslog", "acct", "capset",
		"mount_setattr", "lookup_dcookie", "nfsservctl", "vhangup", "uselib", "ustat", "sysfs", "_sysctl",
	}
	for _, v := range []Variant{Runc, GVisor} {
		for _, arch := range []string{"amd64", "arm64"} {
			p, err := For(v, arch)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range p.Rules {
				for _, name := range r.Names {
					if r.Action == Allow && slices.Contains(dangerous, name) {
						t.Errorf("variant %d allows %s", v, name)
					}
				}
			}
		}
	}
}

func TestProfileRulesAreDisjointAndConditional(t *testing.T) {
	p, err := For(Runc, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]Rule{}
	for _, r := range p.Rules {
		for _, n := range r.Names {
			if _, twice := seen[n]; twice {
				t.Errorf("%s has two rules", n)
			}
			seen[n] = r
		}
	}
	for _, n := range []string{"socket", "socketpair"} {
		if a := seen[n].Args; len(a) != 1 || a[0] != (Arg{Index: 0, Value: syscall.AF_UNIX, Op: Equal}) {
			t.Errorf("%s is allowed with %v, want AF_UNIX only", n, a)
		}
	}
	if a := seen["clone"].Args; len(a) != 1 || a[0].Value != 0x7e020000 || a[0].ValueTwo != 0 || a[0].Op != MaskedEqual {
		t.Errorf("clone is allowed with %+v, want no namespace flags", a)
	}
	if a := seen["madvise"].Args; len(a) != 1 || a[0] != (Arg{Index: 2, Value: syscall.MADV_MERGEABLE, Op: NotEqual}) {
		t.Errorf("madvise is allowed with %+v, want everything but MADV_MERGEABLE", a)
	}
	if r := seen["clone3"]; r.Action != Errno || r.Errno != uint(syscall.ENOSYS) {
		t.Errorf("clone3 for runc is %+v, want ENOSYS, or C libraries do not fall back", r)
	}
	g, err := For(GVisor, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if r := g.Rules[len(g.Rules)-1]; r.Names[0] != "clone3" || r.Action != Allow {
		t.Errorf("clone3 for gVisor is %+v, want it allowed", r)
	}
	if !slices.IsSorted(allowed) {
		t.Error("the list is not sorted")
	}
}

func TestProfileUnknownArchitecture(t *testing.T) {
	if _, err := For(Runc, "s390x"); err == nil {
		t.Error("an architecture without a profile must be refused")
	}
}

func TestDockerJSON(t *testing.T) {
	p, err := For(Runc, "arm64")
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.DockerJSON()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		DefaultAction string
		Architectures []string
		Syscalls      []struct {
			Names    []string
			Action   string
			ErrnoRet *uint
			Args     []struct {
				Index, Value, ValueTwo uint64
				Op                     string
			}
		}
	}
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.DefaultAction != "SCMP_ACT_ERRNO" || !slices.Equal(got.Architectures, []string{"SCMP_ARCH_AARCH64"}) {
		t.Errorf("head is %q %q", got.DefaultAction, got.Architectures)
	}
	if len(got.Syscalls) != len(p.Rules) {
		t.Fatalf("%d rules, want %d", len(got.Syscalls), len(p.Rules))
	}
	if s := got.Syscalls[1]; s.Args[0].Value != 1 || s.Args[0].Op != "SCMP_CMP_EQ" {
		t.Errorf("socket's rule is %+v", s)
	}
	if s := got.Syscalls[4]; s.ErrnoRet == nil || *s.ErrnoRet != 38 {
		t.Errorf("clone3's rule is %+v", s)
	}
}
