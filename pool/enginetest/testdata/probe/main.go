// Command probe is the whole content of the contract suite's container image: it connects to the host's socket and does
// what it is told, line by line, so that tests see a container from inside.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

type order struct {
	Op   string
	N    int64
	Path string
	Args []uintptr
}

type answer struct {
	N     int64
	Text  string
	Errno int
	Error string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "sleep" {
		time.Sleep(time.Hour)
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "exit" {
		os.Exit(7)
	}
	conn, err := dial()
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(99)
	}
	in, out := json.NewDecoder(bufio.NewReader(conn)), json.NewEncoder(conn)
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) { // the host went away: wait for the next one, as an agent does
				if conn, err = dial(); err == nil {
					in, out = json.NewDecoder(bufio.NewReader(conn)), json.NewEncoder(conn)
					continue
				}
			}
			os.Exit(98)
		}
		var a answer
		if err := obey(o, &a); err != nil {
			a.Error = err.Error()
			var errno syscall.Errno
			if errors.As(err, &errno) {
				a.Errno = int(errno)
			}
		}
		_ = out.Encode(a)
	}
}

func dial() (net.Conn, error) {
	var err error
	for range 400 {
		var conn net.Conn
		if conn, err = net.Dial("unix", "/run/paddock/link"); err == nil {
			return conn, nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	return nil, err
}

var hoard [][]byte
var sink uint64

func obey(o order, a *answer) error {
	switch o.Op {
	case "ping":
		return nil
	case "exit":
		os.Exit(int(o.N))
	case "ids":
		groups, err := syscall.Getgroups()
		a.Text = fmt.Sprint(os.Getpid(), os.Getuid(), os.Geteuid(), os.Getgid(), groups)
		return err
	case "read":
		text, err := os.ReadFile(o.Path)
		a.Text = string(text[:min(len(text), 64<<10)])
		return err
	case "list":
		entries, err := os.ReadDir(o.Path)
		for _, e := range entries {
			a.Text += e.Name() + " "
		}
		return err
	case "write":
		f, err := os.OpenFile(o.Path, os.O_WRONLY|os.O_CREATE, 0o755)
		if err != nil {
			return err
		}
		defer f.Close()
		chunk := make([]byte, 64<<10)
		for a.N < o.N {
			n, err := f.Write(chunk[:min(int64(len(chunk)), o.N-a.N)])
			a.N += int64(n)
			if err != nil {
				return err
			}
		}
	case "mkfiles":
		for ; a.N < o.N; a.N++ {
			if err := os.WriteFile(fmt.Sprintf("%s/f%d", o.Path, a.N), nil, 0o600); err != nil {
				return err
			}
		}
	case "remove":
		return os.RemoveAll(o.Path)
	case "execfile":
		return exec.Command(o.Path).Run()
	case "alloc":
		for range o.N {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = byte(i)
			}
			hoard = append(hoard, b)
		}
	case "spin":
		for range o.N {
			go func() {
				var x uint64 // no system calls, no memory: nothing that would hand over control
				for {
					x = x*6364136223846793005 + 1
					sink = x
				}
			}()
		}
	case "spawn": // N children that sleep
		for ; a.N < o.N; a.N++ {
			if _, err := os.StartProcess("/probe", []string{"/probe", "sleep"}, &os.ProcAttr{}); err != nil {
				return err
			}
		}
	case "daemon": // a child in a session of its own
		p, err := os.StartProcess("/probe", []string{"/probe", "sleep"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}})
		if err != nil {
			return err
		}
		a.N = int64(p.Pid)
	case "child": // a child that ends: threads, exec and wait work
		err := exec.Command("/probe", "exit").Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			a.N = int64(exit.ExitCode())
			return nil
		}
		return err
	case "print":
		chunk := []byte(strings.Repeat(o.Path, 1+(32<<10)/len(o.Path)))
		for a.N < o.N {
			n, err := os.Stdout.Write(chunk[:min(int64(len(chunk)), o.N-a.N)])
			a.N += int64(n)
			if err != nil {
				return err
			}
		}
	case "syscall":
		var args [6]uintptr
		copy(args[:], o.Args)
		r, _, errno := syscall.RawSyscall6(uintptr(o.N), args[0], args[1], args[2], args[3], args[4], args[5])
		a.N = int64(r)
		if errno != 0 {
			return errno
		}
	case "interfaces":
		all, err := net.Interfaces()
		for _, i := range all {
			if i.Name != "lo" || i.Flags&net.FlagUp != 0 {
				a.Text += i.Name + " "
			}
		}
		return err
	case "threads":
		text, err := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "Threads:") {
				fmt.Sscan(line[8:], &a.N)
			}
		}
		return err
	default:
		return fmt.Errorf("no such order: %q", o.Op)
	}
	return nil
}
