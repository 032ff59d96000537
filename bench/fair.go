package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The fair section: twenty tenants call at their share, and one at ten times as much. Calls cost about a millisecond of CPU.
const (
	fairTenants = 20
	fairFactor  = 10
	fairConns   = 4 // of each of the twenty
	fairBar     = 1.5
	fairHandler = `(n) => require('node:crypto').pbkdf2Sync('p', 's', 2000, 32, 'sha256').length`
	floodConns  = 100 // what a tenant may have in flight by default
	callerNice  = -10 // of the twenty's callers
	floodNice   = 10  // its callers would be elsewhere: they leave the cores to who is measured
)

// fairCase is one way to be too much.
type fairCase struct {
	name string
	load float64 // of the machine's capacity that the twenty offer together
	// rate of the flood's calls in shares; 0 is the next call as soon as one has ended, which fills the machine.
	factor  float64
	limited bool // the flood's tenant may have its share of calls a second and no more
}

var fairCases = []fairCase{
	{"a machine with room", 0.33, fairFactor, false},
	{"nine tenths refused", 0.5, fairFactor, true},
	{"a machine that the others nearly fill", 0.85, fairFactor, false},
	{"a flood without end", 0.5, 0, false},
}

// fair measures by how much a tenant that is too much slows down all others, alone and beside it in turn.
func (b *bench) fair(ctx context.Context) error {
	return b.inEach(ctx, "fair", b.fairIn, "--min-ready", "4")
}

func (b *bench) fairIn(ctx context.Context, s *service) error {
	var others []target
	for i := range fairTenants {
		t, err := s.overloadTarget(fmt.Sprintf("fair-%d", i), fairHandler, nil)
		if err != nil {
			return err
		}
		others = append(others, t)
	}
	flood, err := s.overloadTarget("flood", fairHandler, nil)
	if err != nil {
		return err
	}
	for _, t := range append(slices.Clone(others), flood) { // bind, load, optimise
		if err := answers(t, time.Minute); err != nil {
			return err
		}
		if _, err := load(t, 1, 300*time.Millisecond); err != nil {
			return err
		}
	}
	// Whoever measures goes first: a caller that waits for the cores, which callers elsewhere would not, says nothing of the service.
	if err := renice(os.Getpid(), callerNice); err != nil {
		return err
	}
	defer renice(os.Getpid(), 0)
	capacity, err := most(others)
	if err != nil {
		return err
	}
	for _, c := range fairCases {
		share := c.load * capacity / fairTenants
		rate := 1000.0
		if c.limited {
			rate = share
		}
		if err := s.manage("PATCH", "/v1/tenants/flood", "", map[string]any{"policy": map[string]any{"ratePerSecond": rate, "rateBurst": int(2 * rate)}}, nil); err != nil {
			return err
		}
		if err := b.fairness(ctx, s, others, flood, c, share); err != nil {
			return err
		}
	}
	return nil
}

// renice sets the priority of all threads of a process; those that it makes later have it from them.
func renice(pid, nice int) error {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, id, nice); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("priority %d of process %d: %w", nice, pid, err)
		}
	}
	return nil
}

// answers calls t until it is served: the pool has to make a container first.
func answers(t target, within time.Duration) error {
	c := &trier{t: t}
	defer c.close()
	for end := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		status, err := c.try()
		if err == nil && status == http.StatusOK {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is not served: %d, %v", t.name, status, err)
		}
	}
}

// most is the most calls per second of several tries: warm containers may still be made in place of those that were taken.
func most(all []target) (capacity float64, err error) {
	for range 5 {
		n, err := together(all, time.Second)
		if err != nil {
			return 0, err
		}
		capacity = max(capacity, n)
	}
	return capacity, nil
}

// together calls all targets at once, one connection each, and returns the calls per second.
func together(all []target, d time.Duration) (float64, error) {
	var sum atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, len(all))
	for _, t := range all {
		wg.Go(func() {
			f, err := load(t, 1, d)
			sum.Add(int64(f.calls))
			if err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
		return float64(sum.Load()) / d.Seconds(), nil
	}
}

func (b *bench) fairness(ctx context.Context, s *service, others []target, flood target, c fairCase, share float64) error {
	var ratios, alone, beside []float64
	var failed int64
	var last floodResult
	var slow [2]string // where the slow ones of the last round were
	for round := range b.rounds {
		var p99 [2]time.Duration // alone, beside
		for i := range 2 {
			kind := (round + i) % 2
			var result func() (floodResult, error)
			if kind == 1 {
				var err error
				if result, err = startFlood(ctx, flood, c.factor*share, b.burst+time.Second); err != nil {
					return err
				}
				time.Sleep(500 * time.Millisecond) // it has begun, and its containers are there
			}
			visits, bad := atShare(others, share, b.burst)
			failed += bad
			p99[kind], slow[kind] = quantile(durations(visits), 0.99), where(visits)
			if result != nil {
				var err error
				if last, err = result(); err != nil {
					return err
				}
			}
		}
		ratios = append(ratios, float64(p99[1])/float64(p99[0]))
		alone, beside = append(alone, ms(p99[0])), append(beside, ms(p99[1]))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	name := fmt.Sprintf("fair: others' p99 beside one at %d x, %s, %s", fairFactor, c.name, s.isolation)
	b.atMost(name, median(ratios), fairBar, " x", fmt.Sprintf("(%.1f against %.1f ms; spread %.2f-%.2f; share %.0f/s; flood %.0f/s ok, %.0f/s refused)",
		median(beside), median(alone), slices.Min(ratios), slices.Max(ratios), share, last.OK, last.Refused))
	b.progress("%s: %.2f\n  the slowest, ms: alone %s\n                  beside %s", name, median(ratios), slow[0], slow[1])
	b.atMost("fair: others' failures, "+c.name+", "+s.isolation, float64(failed), 0, "", "")
	return nil
}

// atShare calls every target at rate calls a second, at random times, and returns how long the calls took from when they were
// due, and how many failed.
func atShare(all []target, rate float64, d time.Duration) (visits []visit, failed int64) {
	var mu sync.Mutex
	var bad atomic.Int64
	var wg sync.WaitGroup
	for _, t := range all {
		due := make(chan time.Time, int(rate*d.Seconds())+1024)
		wg.Go(func() {
			defer close(due)
			for at, end := time.Now(), time.Now().Add(d); ; {
				at = at.Add(time.Duration(rand.ExpFloat64() / rate * float64(time.Second)))
				if at.After(end) {
					return
				}
				time.Sleep(time.Until(at))
				due <- at
			}
		})
		for range fairConns {
			wg.Go(func() {
				c := &trier{t: t}
				defer c.close()
				var mine []visit
				for at := range due {
					late := time.Since(at)
					if status, err := c.try(); err != nil || status != http.StatusOK {
						bad.Add(1)
						continue
					}
					mine = append(mine, visit{time.Since(at), late, stagesOf(c.timing)})
				}
				mu.Lock()
				visits = append(visits, mine...)
				mu.Unlock()
			})
		}
	}
	wg.Wait()
	return visits, bad.Load()
}

// durations are how long the calls took, sorted.
func durations(visits []visit) (took []time.Duration) {
	for _, v := range visits {
		took = append(took, v.took)
	}
	slices.Sort(took)
	return took
}

// floodOrder is what a process of its own floods, so that what it costs to make the flood is not counted against who is measured.
type floodOrder struct {
	Addr      string
	Req       []byte
	PerSecond float64 // 0: the next as soon as one has ended
	For       time.Duration
	Conns     int          // 0: floodConns
	Stream    *streamOrder // over gRPC instead
}

// floodResult is per second.
type floodResult struct{ OK, Refused, Failed float64 }

func startFlood(ctx context.Context, t target, perSecond float64, d time.Duration) (func() (floodResult, error), error) {
	return startOrder(ctx, floodOrder{Addr: t.addr, Req: t.req, PerSecond: perSecond, For: d})
}

func startOrder(ctx context.Context, o floodOrder) (func() (floodResult, error), error) {
	order, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-flood")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(order), os.Stderr
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() (r floodResult, err error) {
		if err := cmd.Wait(); err != nil {
			return r, fmt.Errorf("the flood: %w", err)
		}
		return r, json.Unmarshal(out.Bytes(), &r)
	}, nil
}

// floodMain is the process that floods.
func floodMain() error {
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, floodNice); err != nil {
		return err
	}
	var o floodOrder
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return err
	}
	if o.Stream != nil {
		r, err := floodStream(*o.Stream, o.For)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	var ok, refused, failed atomic.Int64
	began := time.Now()
	tokens := make(chan struct{}, floodConns)
	if o.PerSecond > 0 {
		go func() {
			for n := 0.0; time.Since(began) < o.For; time.Sleep(time.Millisecond) {
				for ; n < time.Since(began).Seconds()*o.PerSecond; n++ {
					select {
					case tokens <- struct{}{}:
					default:
					}
				}
			}
			close(tokens)
		}()
	} else {
		close(tokens)
	}
	var wg sync.WaitGroup
	for range cmp.Or(o.Conns, floodConns) {
		wg.Go(func() {
			c := &trier{t: target{addr: o.Addr, req: o.Req}}
			defer c.close()
			for time.Since(began) < o.For {
				if _, more := <-tokens; !more && o.PerSecond > 0 {
					return
				}
				switch status, err := c.try(); {
				case err != nil:
					failed.Add(1)
				case status == http.StatusOK:
					ok.Add(1)
				case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
					refused.Add(1)
				default:
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	per := func(n *atomic.Int64) float64 { return float64(n.Load()) / time.Since(began).Seconds() }
	return json.NewEncoder(os.Stdout).Encode(floodResult{per(&ok), per(&refused), per(&failed)})
}
