// Command probe is native code in a sandbox: it makes system calls that JavaScript cannot make and prints what came of them, as
// one JSON object of names to error numbers (0: it went through). It judges nothing, and it does no harm to a host without
// a sandbox: arguments are empty or wrong wherever a success would be felt.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	runtime.LockOSThread()
	mode := "calls"
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	switch mode {
	case "calls":
		print(try(calls()))
	case "sockets":
		print(try(sockets()))
	case "beyond":
		print(try(beyond()))
	case "int80": // getpid of the 32-bit table
		fmt.Println(int80(20))
	case "x32": // getpid of the x32 table
		pid, _, errno := unix.RawSyscall(1<<30|unix.SYS_GETPID, 0, 0, 0)
		fmt.Println(int(pid), int(errno))
	case "storm":
		print(storm(time.Second))
	}
}

func print(results map[string]int) { _ = json.NewEncoder(os.Stdout).Encode(results) }

// call is a system call and its arguments.
type call struct {
	name string
	nr   uintptr
	args [6]uintptr
}

func try(list []call) map[string]int {
	results := map[string]int{}
	for _, c := range list {
		_, _, errno := unix.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
		results[c.name] = int(errno)
	}
	return results
}

// sockets are of every family that there is but unix and the three that say where a sandbox ends.
func sockets() (list []call) {
	families := map[string]uintptr{"inet": unix.AF_INET, "inet6": unix.AF_INET6, "netlink": unix.AF_NETLINK, "packet": unix.AF_PACKET,
		"vsock": unix.AF_VSOCK, "alg": unix.AF_ALG, "bluetooth": unix.AF_BLUETOOTH, "can": unix.AF_CAN, "key": unix.AF_KEY,
		"xdp": unix.AF_XDP, "tipc": unix.AF_TIPC, "rds": unix.AF_RDS, "nfc": unix.AF_NFC, "smc": unix.AF_SMC, "ax25": unix.AF_AX25}
	kinds := map[string]uintptr{"stream": unix.SOCK_STREAM, "datagram": unix.SOCK_DGRAM, "raw": unix.SOCK_RAW, "seqpacket": unix.SOCK_SEQPACKET}
	for family, f := range families {
		for kind, k := range kinds {
			list = append(list, call{family + " " + kind, unix.SYS_SOCKET, [6]uintptr{f, k}})
			list = append(list, call{family + " " + kind + " pair", unix.SYS_SOCKETPAIR, [6]uintptr{f, k}})
		}
	}
	return list
}

// beyond are numbers that no kernel has a call for yet. 335 and 336 are left out: the kernel takes them for its own probes and
// raises SIGILL, whatever a filter says.
func beyond() (list []call) {
	for _, nr := range []uintptr{423, 470, 500, 512, 547, 999, 5000, 1 << 16, 1<<30 - 1} {
		list = append(list, call{strconv.Itoa(int(nr)), nr, [6]uintptr{}})
	}
	return list
}

// storm asks the host for work that all pay for, for a while. It counts what went through.
func storm(d time.Duration) map[string]int {
	done := map[string]int{"sync": 0, "syncfs": 0, "fallocate": 0, "hugepages": 0, "merge": 0}
	fd, err := unix.Open("/tmp/storm", unix.O_CREAT|unix.O_RDWR, 0o600)
	if err != nil {
		fd = -1
	}
	memory, _ := unix.Mmap(-1, 0, 4<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	count := func(name string, err error) {
		if err == nil {
			done[name]++
		}
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, _, errno := unix.RawSyscall(unix.SYS_SYNC, 0, 0, 0); errno == 0 {
			done["sync"]++
		}
		count("syncfs", unix.Syncfs(fd))
		count("fallocate", unix.Fallocate(fd, 0, 0, 1<<40))
		count("hugepages", unix.Madvise(memory, unix.MADV_HUGEPAGE))
		count("merge", unix.Madvise(memory, unix.MADV_MERGEABLE))
	}
	return done
}
