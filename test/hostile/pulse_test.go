package hostile

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pulse measures how late this machine wakes a sleeper, on each CPU: a virtual one may stand still by itself. Other work
// can stop everything for a while; bounds of time are widened by what was seen, so that they judge the service and not its
// neighbours.
type pulse struct {
	mu   sync.Mutex
	late []lateness // those that count, oldest first
	cpus int
}

type lateness struct {
	at time.Time
	by time.Duration
}

const (
	beat     = 10 * time.Millisecond
	countsAt = 15 * time.Millisecond // less is usual
	hops     = 4                     // wake-ups one after the other between a caller and its answer
	mostLate = 2 * time.Second       // no bound is widened by more
)

func startPulse(t *testing.T) *pulse {
	t.Helper()
	p := &pulse{}
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var done sync.WaitGroup
	for cpu := range 1024 {
		if cpus.IsSet(cpu) {
			p.cpus++
			done.Go(func() { p.watch(cpu, stop) })
		}
	}
	t.Cleanup(func() { close(stop); done.Wait() })
	return p
}

// watch sleeps and wakes on one CPU.
func (p *pulse) watch(cpu int, stop <-chan struct{}) {
	runtime.LockOSThread() // for good: the thread ends with the goroutine
	var own unix.CPUSet
	own.Set(cpu)
	_ = unix.SchedSetaffinity(0, &own) // not allowed: then it is one more sleeper anywhere
	sleep := unix.NsecToTimespec(int64(beat))
	for {
		select {
		case <-stop:
			return
		default:
		}
		began := time.Now()
		_ = unix.Nanosleep(&sleep, nil)
		if by := time.Since(began) - beat; by >= countsAt {
			p.mu.Lock()
			p.late = append(p.late, lateness{time.Now(), by})
			p.mu.Unlock()
		}
	}
}

// slack is what a bound of time may be exceeded by that began then: for each hop, the longest stop that was seen since.
func (p *pulse) slack(since time.Time) (most time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.late) - 1; i >= 0 && p.late[i].at.After(since); i-- {
		most = max(most, p.late[i].by)
	}
	return min(most*hops, mostLate)
}

// p99 is the 99th percentile of how late sleepers woke since then.
func (p *pulse) p99(since time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var late []time.Duration
	asleep := time.Duration(p.cpus) * time.Since(since)
	for i := len(p.late) - 1; i >= 0 && p.late[i].at.After(since); i-- {
		late = append(late, p.late[i].by)
		asleep -= p.late[i].by
	}
	slices.Sort(late)
	if i := len(late) - 1 - (int(asleep/beat)+len(late))/100; i >= 0 {
		return late[i]
	}
	return 0
}
