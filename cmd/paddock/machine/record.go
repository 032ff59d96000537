package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Record says where a running service is, for clients on the same machine. Only root may read it.
type Record struct {
	HTTP    string `json:"http"` // URL
	GRPC    string `json:"grpc"` // host:port
	PID     int    `json:"pid"`
	DataDir string `json:"data_dir"`
	KeyFile string `json:"key_file"`
	TLSCert string `json:"tls_cert,omitempty"`
}

// Dial returns the address of the gRPC listener as this machine reaches it.
func (r Record) Dial() string {
	host, port, err := net.SplitHostPort(r.GRPC)
	if err != nil {
		return r.GRPC
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func recordDir(base string) string { return filepath.Join(base, "up") }

func recordFile(base, id string) string { return filepath.Join(recordDir(base), id+".json") }

// Announce leaves the record of the service id; the function it returns takes it away.
func Announce(base, id string, r Record) (withdraw func(), err error) {
	dir := recordDir(base)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("record for clients: %w", Explain(err))
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := WriteFile(recordFile(base, id), append(b, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("record for clients: %w", Explain(err))
	}
	return func() { Withdraw(base, id) }, nil
}

// Withdraw takes away the record of the service id, one that a killed process left, too.
func Withdraw(base, id string) {
	os.Remove(recordFile(base, id))
	os.Remove(recordDir(base)) // this and the next go only when nothing else is in them
	os.Remove(base)
}

// Running returns the services on this machine whose process is alive. A record that a killed one left is passed over.
func Running(base string) ([]Record, error) {
	files, err := os.ReadDir(recordDir(base))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Record
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".json") || strings.HasPrefix(f.Name(), ".") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(recordDir(base), f.Name()))
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			return nil, err
		}
		var r Record
		if json.Unmarshal(b, &r) == nil && holdsLock(r) {
			all = append(all, r)
		}
	}
	return all, nil
}

// holdsLock says whether the service still holds its data directory. A pid alone may be somebody else's by now.
func holdsLock(r Record) bool {
	f, err := os.Open(filepath.Join(r.DataDir, "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	return errors.Is(err, syscall.EWOULDBLOCK)
}
