package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What the overload section offers: calls that cost some ms of CPU, to a tenant that has one container.
const (
	overloadFactor  = 5
	overloadTries   = 3
	overloadConns   = 256
	overloadTimeout = 2 * time.Second
	// native work: what V8 makes of a loop becomes half as fast after some hundreds of calls
	overloadHandler = `(n) => require('node:crypto').pbkdf2Sync('p', 's', 15000, 32, 'sha256').length`
)

// overloadPlan is how long its phases last, and its bars.
type overloadPlan struct {
	alone, flood, recovery time.Duration
	goodput, back          float64 // of capacity
	heapMiB                float64
	victimRatio, victimMS  float64
}

var fullOverload = overloadPlan{
	alone: 10 * time.Second, flood: time.Minute, recovery: 30 * time.Second,
	goodput: 0.8, back: 0.9, heapMiB: 16, victimRatio: 2, victimMS: 20,
}

// overload offers one tenant five times what its container can do, from clients that repeat what is refused, while another
// tenant calls at 20/s. Capacity and the other tenant's latency alone are taken before and after, in the same run: the machine
// may be somebody else's, too.
func (b *bench) overload(ctx context.Context) error {
	s, err := b.startService(ctx, filepath.Join(b.dir, "overload"), cmp.Or(b.isolation, "gvisor"), "--min-ready", "1")
	if err != nil {
		return err
	}
	defer s.stop()
	return b.measureOverload(ctx, s, fullOverload)
}

func (b *bench) measureOverload(ctx context.Context, s *service, plan overloadPlan) error {
	busy, err := s.overloadTarget("crowd", overloadHandler, map[string]any{"maxContainers": 1})
	if err != nil {
		return err
	}
	quiet, err := s.overloadTarget("quiet", "(n) => n", map[string]any{"maxContainers": 1})
	if err != nil {
		return err
	}
	o := &overloadRun{busy: busy, service: s}
	o.served(4, 3*time.Second) // compile, optimise
	victim := startPulse(ctx, quiet)
	defer victim.stop()
	before := o.served(8, plan.alone)
	victim.phase("alone")
	time.Sleep(plan.alone)
	victim.phase("flood")
	b.progress("capacity %.0f calls/s; offering %d times as much for %s", before, overloadFactor, plan.flood)
	result, err := o.offer(overloadFactor*before, plan.flood)
	if err != nil {
		return err
	}
	victim.phase("")
	took, again := o.recover(plan, before)
	after := o.served(8, plan.alone)
	victim.phase("alone")
	time.Sleep(plan.alone)
	victim.stop()
	capacity := (before + after) / 2
	loaded := loadAverage()
	b.atLeast("overload: goodput at 5x, of capacity", result.goodput/capacity, plan.goodput, "",
		fmt.Sprintf("(%.0f of %.0f/s, %d tries/s, %s)", result.goodput, capacity, result.tries, loaded))
	b.atMost("overload: live heap, last third over first third", result.heapGrowth, plan.heapMiB, " MiB", fmt.Sprintf("(of %.1f MiB)", result.heap))
	b.atLeast("overload: goodput after, of capacity", again/capacity, plan.back, "", fmt.Sprintf("(after %s)", took.Round(time.Second)))
	alone, flood := victim.p99("alone"), victim.p99("flood")
	bar := max(plan.victimRatio*ms(alone), ms(alone)+plan.victimMS)
	b.atMost("overload: another tenant's p99, pooled", ms(flood), bar, " ms", fmt.Sprintf("(%.1f ms alone, %d calls)", ms(alone), victim.calls()))
	b.atMost("overload: another tenant's failures", float64(victim.failed.Load()), 0, "", victim.firstFailure())
	b.atMost("overload: 5xx beside 503, and broken connections", float64(result.broken), 0, "", result.brokenWhy)
	return nil
}

// loadAverage is the machine's, for who reads the figures.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "load unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return "machine's load " + one
}

// overloadTarget makes a tenant with one function.
func (s *service) overloadTarget(tenant, source string, policy map[string]any) (target, error) {
	if err := s.tenant(tenant, policy); err != nil {
		return target{}, err
	}
	if err := s.deploy(tenant, "busy", source); err != nil {
		return target{}, err
	}
	key, err := s.invokeKey(tenant)
	if err != nil {
		return target{}, err
	}
	return target{name: tenant, addr: s.http, req: request(s.http, "/v1/functions/busy/invoke?timeout="+overloadTimeout.String(), "0",
		"Authorization: Bearer "+key)}, nil
}

// overloadRun offers load by the clock, whatever comes back.
type overloadRun struct {
	busy    target
	service *service
}

// overloadResult is what came of it.
type overloadResult struct {
	goodput    float64
	tries      int     // per second
	heap       float64 // in the first third
	heapGrowth float64
	broken     int64
	brokenWhy  string
}

func (o *overloadRun) offer(perSecond float64, d time.Duration) (res overloadResult, err error) {
	arrivals := make(chan time.Time, 4*int(perSecond))
	var good, tries, broken atomic.Int64
	var why atomic.Pointer[string]
	var clients sync.WaitGroup
	for range overloadConns {
		clients.Go(func() {
			c := &trier{t: o.busy}
			defer c.close()
			for arrived := range arrivals {
				for try := range overloadTries {
					if time.Since(arrived) > 2*overloadTimeout {
						break // its user has gone
					}
					tries.Add(1)
					status, err := c.try()
					if status == http.StatusOK {
						good.Add(1)
						break
					}
					if err != nil || status >= 500 && status != http.StatusServiceUnavailable && status != http.StatusGatewayTimeout {
						broken.Add(1)
						text := fmt.Sprint(status, " ", err)
						why.CompareAndSwap(nil, &text)
					}
					time.Sleep(time.Duration(float64(50*time.Millisecond) * float64(int(1)<<try) * (0.5 + rand.Float64())))
				}
			}
		})
	}
	heaps := []float64{}
	began := time.Now()
	var due float64
	for at := began; at.Sub(began) < d; at = time.Now() {
		for ; due < at.Sub(began).Seconds()*perSecond; due++ {
			select {
			case arrivals <- at:
			default: // more than clients can even try
			}
		}
		if len(heaps) <= int(at.Sub(began)/time.Second) {
			heap, err := o.service.heap()
			if err != nil {
				close(arrivals)
				return res, err
			}
			heaps = append(heaps, heap)
		}
		time.Sleep(2 * time.Millisecond)
	}
	took := time.Since(began)
	res.goodput, res.tries = float64(good.Load())/took.Seconds(), int(float64(tries.Load())/took.Seconds())
	close(arrivals)
	for range arrivals { // what nobody took
	}
	clients.Wait()
	third := max(1, len(heaps)/3)
	res.heap = median(heaps[:third])
	res.heapGrowth = median(heaps[len(heaps)-third:]) - res.heap
	if res.broken = broken.Load(); why.Load() != nil {
		res.brokenWhy = *why.Load()
	}
	return res, nil
}

// served calls from conns connections for a time, the next call as soon as one has ended, and returns the good answers per second.
func (o *overloadRun) served(conns int, d time.Duration) float64 {
	var good atomic.Int64
	var clients sync.WaitGroup
	began := time.Now()
	for range conns {
		clients.Go(func() {
			c := &trier{t: o.busy}
			defer c.close()
			for time.Since(began) < d {
				if status, _ := c.try(); status == http.StatusOK {
					good.Add(1)
				}
			}
		})
	}
	clients.Wait()
	return float64(good.Load()) / time.Since(began).Seconds()
}

// recover looks second by second until the tenant gets what it got before.
func (o *overloadRun) recover(plan overloadPlan, capacity float64) (took time.Duration, best float64) {
	began := time.Now()
	for best < plan.back*capacity && time.Since(began) < plan.recovery {
		best = max(best, o.served(8, time.Second))
	}
	return time.Since(began), best
}

// heap is what lived in the service's Go heap at its last collection, in MiB. What is in use swings to five times as much between
// collections (machine.TuneGC) and says nothing of growth.
func (s *service) heap() (float64, error) {
	res, err := http.Get("http://" + s.http + "/metrics")
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "go_gc_heap_live_bytes "); ok {
			n, err := strconv.ParseFloat(value, 64)
			return n / (1 << 20), err
		}
	}
	return 0, errors.New("/metrics says nothing of the heap")
}

// trier is a client that takes any answer.
type trier struct {
	t      target
	c      *client
	timing string // Server-Timing of the last answer
}

func (c *trier) close() {
	if c.c != nil {
		c.c.conn.Close()
		c.c = nil
	}
}

// try makes one call. An error means that the connection broke.
func (c *trier) try() (status int, err error) {
	if c.c == nil {
		if c.c, err = dial(c.t); err != nil {
			return 0, err
		}
	}
	if _, err := c.c.conn.Write(c.t.req); err != nil {
		c.close()
		return 0, err
	}
	res, err := http.ReadResponse(c.c.r, nil)
	if err != nil {
		c.close()
		return 0, err
	}
	defer res.Body.Close()
	c.timing = res.Header.Get("Server-Timing")
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		c.close()
		return 0, err
	}
	if res.Close {
		c.close()
	}
	return res.StatusCode, nil
}

// pulse calls at a steady rate and keeps how long it took, by phase.
type pulse struct {
	cancel context.CancelFunc
	done   chan struct{}
	failed atomic.Int64

	mu    sync.Mutex
	now   string
	took  map[string][]time.Duration
	first string
}

func startPulse(ctx context.Context, t target) *pulse {
	return startPulseEvery(ctx, t, 50*time.Millisecond)
}

func startPulseEvery(ctx context.Context, t target, every time.Duration) *pulse {
	ctx, cancel := context.WithCancel(ctx)
	p := &pulse{cancel: cancel, done: make(chan struct{}), took: map[string][]time.Duration{}}
	go func() {
		defer close(p.done)
		c := &trier{t: t}
		defer c.close()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			began := time.Now()
			status, err := c.try()
			p.note(time.Since(began), status, err)
		}
	}()
	return p
}

func (p *pulse) note(took time.Duration, status int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if status != http.StatusOK {
		p.failed.Add(1)
		if p.first == "" {
			p.first = fmt.Sprintf("(%d, %v, in phase %q)", status, err, p.now)
		}
	}
	p.took[p.now] = append(p.took[p.now], took)
}

// phase names what follows; "" is left out of the figures.
func (p *pulse) phase(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = name
}

func (p *pulse) stop() {
	p.cancel()
	<-p.done
}

func (p *pulse) p99(phase string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.Clone(p.took[phase])
	slices.Sort(all)
	return quantile(all, 0.99)
}

func (p *pulse) calls() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.took["alone"]) + len(p.took["flood"])
}

func (p *pulse) firstFailure() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first
}
