package machine

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// MemoryBytes returns how much memory the machine has.
func MemoryBytes() (int64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("memory of the machine: %w", err)
	}
	return int64(info.Totalram) * int64(info.Unit), nil
}
