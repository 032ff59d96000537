package machine

import "runtime/debug"

// gcPercent lets the heap grow to five times what lives between collections. A serving process has little that lives and
// makes much that does not: at Go's default it would collect every few megabytes, for a sixth of its time under load.
const gcPercent = 400

// heapDivisor is which part of the machine's memory the process may take that way; beyond it, it collects more often.
const heapDivisor = 16

// TuneGC sets the collector for a process that serves calls. What the operator has set by GOGC or GOMEMLIMIT stays.
func TuneGC(getenv func(string) string) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if getenv("GOMEMLIMIT") != "" {
		return
	}
	if total, err := MemoryBytes(); err == nil {
		debug.SetMemoryLimit(max(total/heapDivisor, 256<<20))
	}
}
