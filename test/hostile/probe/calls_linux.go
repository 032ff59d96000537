package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flags and operations without a name in x/sys.
const (
	ipcPrivate  = 0
	noSuchMagic = 0x1234
)

// calls are those that nobody in a sandbox needs: kernel interfaces with a history of holes, and what is the host's to decide.
// Where nothing filters, the kernel would find fault with the arguments (EINVAL, EFAULT, EBADF), not forbid.
func calls() []call {
	texts, _ := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // stays where it is
	word := func(s string) uintptr {
		at := uintptr(unsafe.Pointer(&texts[0]))
		texts = texts[copy(texts, s)+1:]
		return at
	}
	tmp, empty := word("/tmp"), word("")
	list := []call{
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, [6]uintptr{1, 0}}, {"io_uring_enter", unix.SYS_IO_URING_ENTER, [6]uintptr{99}},
		{"io_uring_register", unix.SYS_IO_URING_REGISTER, [6]uintptr{99}}, {"userfaultfd", unix.SYS_USERFAULTFD, [6]uintptr{0}},
		{"keyctl", unix.SYS_KEYCTL, [6]uintptr{0, 3}}, {"add_key", unix.SYS_ADD_KEY, [6]uintptr{}}, {"request_key", unix.SYS_REQUEST_KEY, [6]uintptr{}},
		{"bpf", unix.SYS_BPF, [6]uintptr{0, 0, 0}}, {"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [6]uintptr{}},
		{"ptrace traceme", unix.SYS_PTRACE, [6]uintptr{unix.PTRACE_TRACEME}}, {"ptrace attach", unix.SYS_PTRACE, [6]uintptr{unix.PTRACE_ATTACH, 1}},
		{"process_vm_readv", unix.SYS_PROCESS_VM_READV, [6]uintptr{1}}, {"process_vm_writev", unix.SYS_PROCESS_VM_WRITEV, [6]uintptr{1}},
		{"process_madvise", unix.SYS_PROCESS_MADVISE, [6]uintptr{99}}, {"kcmp", unix.SYS_KCMP, [6]uintptr{1, 1}},
		{"pidfd_open", unix.SYS_PIDFD_OPEN, [6]uintptr{1}}, {"pidfd_getfd", unix.SYS_PIDFD_GETFD, [6]uintptr{99, 0}},
		{"pidfd_send_signal", unix.SYS_PIDFD_SEND_SIGNAL, [6]uintptr{99}},
		{"unshare user", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWUSER}}, {"unshare mount", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWNS}},
		{"unshare net", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWNET}}, {"unshare pid", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWPID}},
		{"unshare cgroup", unix.SYS_UNSHARE, [6]uintptr{unix.CLONE_NEWCGROUP}},
		{"clone3", unix.SYS_CLONE3, [6]uintptr{}}, {"mount", unix.SYS_MOUNT, [6]uintptr{0, tmp, 0, unix.MS_BIND}},
		{"mount proc", unix.SYS_MOUNT, [6]uintptr{word("proc"), tmp, word("proc")}}, {"mount cgroup", unix.SYS_MOUNT, [6]uintptr{word("c"), tmp, word("cgroup")}},
		{"umount2", unix.SYS_UMOUNT2, [6]uintptr{tmp, 0}}, {"fsopen", unix.SYS_FSOPEN, [6]uintptr{word("tmpfs")}}, {"fsconfig", unix.SYS_FSCONFIG, [6]uintptr{99}},
		{"fsmount", unix.SYS_FSMOUNT, [6]uintptr{99}}, {"fspick", unix.SYS_FSPICK, [6]uintptr{99, empty}}, {"move_mount", unix.SYS_MOVE_MOUNT, [6]uintptr{99, empty, 99, empty}},
		{"open_tree", unix.SYS_OPEN_TREE, [6]uintptr{99, empty}}, {"mount_setattr", unix.SYS_MOUNT_SETATTR, [6]uintptr{99, empty}},
		{"setns", unix.SYS_SETNS, [6]uintptr{99}}, {"pivot_root", unix.SYS_PIVOT_ROOT, [6]uintptr{tmp, tmp}}, {"chroot", unix.SYS_CHROOT, [6]uintptr{tmp}},
		{"mknodat", unix.SYS_MKNODAT, [6]uintptr{^uintptr(99), word("/tmp/null"), unix.S_IFCHR | 0o666, 1<<8 | 3}},
		{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [6]uintptr{99}}, {"name_to_handle_at", unix.SYS_NAME_TO_HANDLE_AT, [6]uintptr{99}},
		{"kexec_load", unix.SYS_KEXEC_LOAD, [6]uintptr{0, 99}}, {"init_module", unix.SYS_INIT_MODULE, [6]uintptr{}},
		{"finit_module", unix.SYS_FINIT_MODULE, [6]uintptr{99}}, {"delete_module", unix.SYS_DELETE_MODULE, [6]uintptr{}},
		{"reboot", unix.SYS_REBOOT, [6]uintptr{noSuchMagic}}, {"swapon", unix.SYS_SWAPON, [6]uintptr{}}, {"swapoff", unix.SYS_SWAPOFF, [6]uintptr{}},
		{"acct", unix.SYS_ACCT, [6]uintptr{word("/tmp/acct")}}, {"quotactl", unix.SYS_QUOTACTL, [6]uintptr{}}, {"syslog", unix.SYS_SYSLOG, [6]uintptr{10}},
		{"clock_settime", unix.SYS_CLOCK_SETTIME, [6]uintptr{99}}, {"settimeofday", unix.SYS_SETTIMEOFDAY, [6]uintptr{1}}, {"adjtimex", unix.SYS_ADJTIMEX, [6]uintptr{}},
		{"sethostname", unix.SYS_SETHOSTNAME, [6]uintptr{0, ^uintptr(0)}}, {"setdomainname", unix.SYS_SETDOMAINNAME, [6]uintptr{0, ^uintptr(0)}},
		{"personality", unix.SYS_PERSONALITY, [6]uintptr{0x0040000}}, {"vmsplice", unix.SYS_VMSPLICE, [6]uintptr{99}}, {"splice", unix.SYS_SPLICE, [6]uintptr{99, 0, 99}},
		{"tee", unix.SYS_TEE, [6]uintptr{99, 99}}, {"fanotify_init", unix.SYS_FANOTIFY_INIT, [6]uintptr{}}, {"inotify_init1", unix.SYS_INOTIFY_INIT1, [6]uintptr{}},
		{"shmget", unix.SYS_SHMGET, [6]uintptr{ipcPrivate, 4096, 0o1600}}, {"semget", unix.SYS_SEMGET, [6]uintptr{ipcPrivate, 1, 0o1600}},
		{"msgget", unix.SYS_MSGGET, [6]uintptr{ipcPrivate, 0o1600}}, {"mq_open", unix.SYS_MQ_OPEN, [6]uintptr{word("q"), unix.O_CREAT | unix.O_RDWR, 0o600}},
		{"memfd_create", unix.SYS_MEMFD_CREATE, [6]uintptr{word("m")}}, {"memfd_secret", unix.SYS_MEMFD_SECRET, [6]uintptr{}},
		{"execveat", unix.SYS_EXECVEAT, [6]uintptr{99, empty}}, {"landlock_create_ruleset", unix.SYS_LANDLOCK_CREATE_RULESET, [6]uintptr{}},
		{"seccomp", unix.SYS_SECCOMP, [6]uintptr{99}}, {"setuid", unix.SYS_SETUID, [6]uintptr{0}}, {"setgid", unix.SYS_SETGID, [6]uintptr{0}},
		{"setgroups", unix.SYS_SETGROUPS, [6]uintptr{0, 0}}, {"setresuid", unix.SYS_SETRESUID, [6]uintptr{0, 0, 0}}, {"setfsuid", unix.SYS_SETFSUID, [6]uintptr{0}},
		{"capset", unix.SYS_CAPSET, [6]uintptr{}}, {"setpriority", unix.SYS_SETPRIORITY, [6]uintptr{0, 0, ^uintptr(19)}}, {"ioprio_set", unix.SYS_IOPRIO_SET, [6]uintptr{1, 0, 1 << 13}},
		{"sched_setscheduler", unix.SYS_SCHED_SETSCHEDULER, [6]uintptr{0, 1}}, {"mbind", unix.SYS_MBIND, [6]uintptr{}}, {"move_pages", unix.SYS_MOVE_PAGES, [6]uintptr{}},
		{"migrate_pages", unix.SYS_MIGRATE_PAGES, [6]uintptr{}}, {"setxattr", unix.SYS_SETXATTR, [6]uintptr{tmp, word("user.x"), tmp, 1}},
		{"io_setup", unix.SYS_IO_SETUP, [6]uintptr{1}}, {"lookup_dcookie", unix.SYS_LOOKUP_DCOOKIE, [6]uintptr{}},
		{"nfsservctl", unix.SYS_NFSSERVCTL, [6]uintptr{}}, {"clone user", unix.SYS_CLONE, [6]uintptr{unix.CLONE_NEWUSER | unix.CLONE_THREAD}},
	}
	return append(list, ofTheMachine()...)
}
