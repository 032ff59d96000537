package seccomp

// allowed is what a process without capabilities, network and devices needs: files, memory, threads, children, signals,
// time, epoll and unix sockets. It comes from the container profile that Docker ships, for a container without
// capabilities, and leaves out what a language runtime can do without and an attacker would like: debugging other
// processes (ptrace, process_vm_*, kcmp, pidfd_*), executable memory files (memfd_*), file handles, device nodes, every
// namespace and mount call, keyrings, bpf, perf, userfaultfd, io_uring and libaio, inotify and fanotify (quotas per uid),
// SysV and POSIX IPC, personality and modify_ldt, splicing, changes of ids, of scheduling and of priorities, clocks,
// landlock and seccomp, memory policies, writing of extended attributes, sync, fallocate, execveat. Reading the like
// (sched_getaffinity, getpriority) stays. madvise has a rule of its own: not to have pages merged with other tenants', whose
// contents the time of a write would tell. A table for this architecture only: names of 32-bit calls do not occur.
var allowed = []string{
	"accept", "accept4", "access", "alarm", "arch_prctl", "bind", "brk", "capget", "chdir", "chmod", "chown",
	"clock_getres", "clock_gettime", "clock_nanosleep", "close", "close_range", "connect", "copy_file_range", "creat",
	"dup", "dup2", "dup3", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait",
	"eventfd", "eventfd2", "execve", "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fchdir", "fchmod",
	"fchmodat", "fchmodat2", "fchown", "fchownat", "fcntl", "fdatasync", "fgetxattr", "flistxattr", "flock", "fork",
	"fstat", "fstatfs", "fsync", "ftruncate", "futex", "futex_wait", "futex_waitv", "futex_wake", "futimesat",
	"get_robust_list", "getcpu", "getcwd", "getdents", "getdents64", "getegid", "geteuid", "getgid", "getgroups",
	"getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid",
	"getresuid", "getrlimit", "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid",
	"getxattr", "ioctl", "ioprio_get", "kill", "lchown", "lgetxattr", "link", "linkat", "listen", "listxattr",
	"llistxattr", "lseek", "lstat", "membarrier", "mincore", "mkdir", "mkdirat", "mlock", "mlock2",
	"mlockall", "mmap", "mprotect", "mremap", "msync", "munlock", "munlockall", "munmap", "nanosleep", "newfstatat",
	"open", "openat", "openat2", "pause", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll",
	"prctl", "pread64", "preadv", "preadv2", "prlimit64", "pselect6", "pwrite64", "pwritev", "pwritev2", "read",
	"readahead", "readlink", "readlinkat", "readv", "recvfrom", "recvmmsg", "recvmsg", "rename", "renameat", "renameat2",
	"restart_syscall", "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo",
	"rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sched_get_priority_max",
	"sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
	"sched_rr_get_interval", "sched_yield", "select", "sendfile", "sendmmsg", "sendmsg", "sendto", "set_robust_list",
	"set_tid_address", "setitimer", "setpgid", "setrlimit", "setsid", "setsockopt", "shutdown", "sigaltstack", "signalfd",
	"signalfd4", "stat", "statfs", "statx", "symlink", "symlinkat", "sync_file_range", "sysinfo", "tgkill", "time",
	"timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create",
	"timerfd_gettime", "timerfd_settime", "times", "tkill", "truncate", "umask", "uname", "unlink", "unlinkat", "utime",
	"utimensat", "utimes", "vfork", "wait4", "waitid", "write", "writev",
}
