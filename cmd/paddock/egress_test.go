package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"
)

// TestOwnListenersAreForbiddenToSandboxes: whatever this process listens on, under each of the machine's addresses, and nothing
// else.
func TestOwnListenersAreForbiddenToSandboxes(t *testing.T) {
	listen := func(addr string) (*net.TCPListener, uint16) {
		t.Helper()
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.(*net.TCPListener), l.Addr().(*net.TCPAddr).AddrPort().Port()
	}
	_, four := listen("127.0.0.1:0")
	_, all := listen("[::]:0")
	other, others := listen("127.0.0.1:0")
	lend(t, other)
	was, closed := listen("127.0.0.1:0")
	was.Close()
	want := map[string]bool{
		fmt.Sprint("127.0.0.1:", four): true, fmt.Sprint("[::ffff:127.0.0.1]:", four): true, fmt.Sprint("127.0.0.2:", four): true,
		fmt.Sprint("0.0.0.0:", four): true, fmt.Sprint("[::1]:", all): true, fmt.Sprint("127.0.0.1:", all): true,
		fmt.Sprint("93.184.216.34:", all): false, fmt.Sprint("127.0.0.1:", others): false, fmt.Sprint("127.0.0.1:", closed): false,
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			want[netip.AddrPortFrom(p.Addr(), all).String()] = true
		}
	}
	for addr, want := range want {
		if got := ownListener(netip.MustParseAddrPort(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}

// lend leaves a listener to another process alone.
func lend(t *testing.T, l *net.TCPListener) {
	t.Helper()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	f.Close()
	l.Close()
}
