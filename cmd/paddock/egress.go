package main

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/time/rate"

	"paddock/pool/egress"
)

// Refusals that are logged; the rest is only counted, since it is tenants' code that causes them.
const (
	refusalsPerSecond = 5
	refusalsBurst     = 50
)

// newEgress makes the one way out of this controller's sandboxes. It never leads back to the service's own listeners.
func (s *service) newEgress() (*egress.Proxy, error) {
	log := s.log.With("part", "egress")
	roots, err := trustedRoots(s.cfg.SandboxCA)
	if err != nil {
		return nil, err
	}
	return egress.New(egress.Options{
		Logger: log, Observer: observers{newRefusalLog(log), egressAudit{s.audit.events}}, Forbidden: ownListener, Roots: roots,
	}), nil
}

// trustedRoots are the authorities that the host trusts, and those of a file, if there is one.
func trustedRoots(file string) (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("the host's certificates: %w", err)
	}
	if file == "" {
		return roots, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--sandbox-ca: %w", err)
	}
	if !roots.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("--sandbox-ca %s: there is no certificate in it", file)
	}
	return roots, nil
}

// refusalLog writes what was refused to the operator's log, within bounds over all tenants.
type refusalLog struct {
	log   *slog.Logger
	limit *rate.Limiter
}

func newRefusalLog(log *slog.Logger) refusalLog {
	return refusalLog{log, rate.NewLimiter(refusalsPerSecond, refusalsBurst)}
}

// Decided implements egress.Observer.
func (l refusalLog) Decided(d egress.Decision) {
	if d.Event == egress.EventDenied && l.limit.Allow() {
		l.log.Info("egress refused", "tenant", d.Tenant, "container", d.Container, "call", d.Call, "host", d.Host, "port", d.Port,
			"reason", d.Reason)
	}
}

// ownListener says whether an address leads to a listener of this process: the router's, the store's, any other, under
// whichever of the machine's addresses. On doubt it does.
func ownListener(to netip.AddrPort) bool {
	if addr := to.Addr().Unmap(); !addr.IsUnspecified() && !isLocal(addr) {
		return false
	}
	listening, err := listensOn(to.Port())
	return err != nil || listening
}

// isLocal says whether an address is one of this machine's, as it is now.
func isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return true // on doubt it is
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr {
			return true
		}
	}
	return false
}

// listensOn says whether this process holds a TCP socket that listens on the port, on whatever address: the kernel's table of
// sockets knows the inodes of those that do, the process's descriptors which ones are its own.
func listensOn(port uint16) (bool, error) {
	inodes, err := listeners(port)
	if err != nil || len(inodes) == 0 {
		return false, err
	}
	const dir = "/proc/self/fd"
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join(dir, fd.Name())) // closed meanwhile, perhaps
		if inode, ok := strings.CutPrefix(target, "socket:["); err == nil && ok && inodes[strings.TrimSuffix(inode, "]")] {
			return true, nil
		}
	}
	return false, nil
}

// listeners returns the inodes of all sockets of this network namespace that listen on a TCP port.
func listeners(port uint16) (map[string]bool, error) {
	const (
		local, state, inode = 1, 3, 9 // fields of a line
		listen              = "0A"
	)
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		b, err := os.ReadFile(table)
		if os.IsNotExist(err) {
			continue // no IPv6 here
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) <= inode || f[state] != listen {
				continue
			}
			_, hex, _ := strings.Cut(f[local], ":")
			if n, err := strconv.ParseUint(hex, 16, 16); err == nil && uint16(n) == port {
				inodes[f[inode]] = true
			}
		}
	}
	return inodes, nil
}

// checkEgressRule judges a rule of a policy before it is stored.
func checkEgressRule(rule string) error {
	_, err := egress.ParseRule(rule)
	return err
}
