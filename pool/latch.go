package pool

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"paddock/internal/tenant"
)

// The latch is the one file that says whose a container is. It is written once, before the tenant's first byte goes in,
// into a directory that only root sees, and outlives this process: whatever leases, stores or clocks say, a container is
// its latch's. link(2) makes it whole or not at all and refuses a second one.

const latchName = "tenant"

// errTorn means that a latch exists and does not say whose the container is: it may hold anybody's data.
var errTorn = errors.New("pool: the latch is torn")

func latchText(id ContainerID, t tenant.ID) string { return string(t) + "\n" + string(id) + "\n" }

// writeLatch binds id to t for ever. It fails if there is a latch already, whatever it says.
func writeLatch(dir string, id ContainerID, t tenant.ID) error {
	if latchOff {
		return nil
	}
	tmp := filepath.Join(dir, ".tenant")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("pool: latch: %w", err)
	}
	defer os.Remove(tmp)
	_, err = f.WriteString(latchText(id, t))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Link(tmp, filepath.Join(dir, latchName))
	}
	if err != nil {
		return fmt.Errorf("pool: latch: %w", err)
	}
	return nil
}

// readLatch returns whose a container is and since when; "" if it is nobody's, errTorn if that cannot be said.
func readLatch(dir string, id ContainerID) (tenant.ID, time.Time, error) {
	name := filepath.Join(dir, latchName)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		// A bind that died between its two steps has let nothing in, but the directory itself must be there.
		if _, err := os.Stat(dir); err != nil {
			return "", time.Time{}, fmt.Errorf("%w: %w", errTorn, err)
		}
		return "", time.Time{}, nil
	}
	if err != nil {
		return "", time.Time{}, fmt.Errorf("%w: %w", errTorn, err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	t, err := tenant.ParseID(first)
	if err != nil || string(text) != latchText(id, t) {
		return "", time.Time{}, errTorn
	}
	info, err := os.Stat(name)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("%w: %w", errTorn, err)
	}
	return t, info.ModTime(), nil
}

func newContainerID() ContainerID {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return ContainerID(hex.EncodeToString(b[:]))
}
