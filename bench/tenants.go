package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// The tenants section: one service gets more and more tenants, each with a container of its own, another keeps one. What does a call
// cost in both, what do the idle ones hold and burn, and how long does it take to wake one?
const (
	tenantsIdle  = 500 // of which memory, CPU and thaws are measured
	tenantsThaws = 100 // of those, woken once each
	tenantsBurn  = 10 * time.Second

	tenantsBarCost = 1.25 // of the CPU and of the p50 of a call where there is one tenant: what rounds differ by without a difference
	tenantsBarBurn = 2    // % of a core, in all
	tenantsBarThaw = 1    // ms on top of a call
)

// tenantsStages are the points of the curve: how many tenants have a container.
var tenantsStages = map[string][]int{
	"runc":   {1, 10, 100, tenantsIdle, 1_000},
	"gvisor": {1, 10, 100, tenantsIdle}, // 33 MiB each: a thousand are more than this machine has
}

// tenantsBarMemory is what an idle tenant may hold, in MiB.
var tenantsBarMemory = map[string]float64{"runc": 10, "gvisor": 32}

func (b *bench) tenants(ctx context.Context) error {
	return b.inEach(ctx, "tenants", b.tenantsIn, "--min-ready", "4", "--max-containers", "1100", "--memory-budget", "20GiB")
}

func (b *bench) tenantsIn(ctx context.Context, s *service) error {
	single, err := b.startService(ctx, filepath.Join(b.dir, "tenant-"+s.isolation), s.isolation, "--min-ready", "1")
	if err != nil {
		return err
	}
	defer single.stop()
	c := &crowded{service: s, single: single}
	if err := c.prepare(); err != nil {
		return err
	}
	for _, n := range tenantsStages[s.isolation] {
		if err := c.grow(ctx, b, n); err != nil {
			return err
		}
		if err := c.cost(ctx, b, n); err != nil {
			return err
		}
		if n != tenantsIdle {
			continue
		}
		if err := c.idle(ctx, b, n); err != nil {
			return err
		}
		if err := c.thaw(b); err != nil {
			return err
		}
	}
	return nil
}

// crowded is a service with more and more tenants, and one beside it that has a single one.
type crowded struct {
	*service
	single *service
	empty  int64    // bytes that all its processes held before the first
	all    []target // one of each tenant
	alone  target   // of the other service
}

func (c *crowded) prepare() (err error) {
	if c.alone, err = c.single.idleTenant("only"); err != nil {
		return err
	}
	if err := c.settle(4); err != nil {
		return err
	}
	c.empty, err = familyPSS(c.pid)
	return err
}

// idleTenant makes a tenant with one function, which was called once.
func (s *service) idleTenant(id string) (target, error) {
	if err := s.tenant(id, map[string]any{"freezeAfter": "1s", "idleTtl": "3600s", "maxContainers": 1, "ratePerSecond": 1e6}); err != nil {
		return target{}, err
	}
	if err := s.deploy(id, "hello", "module.exports = "+handler+";"); err != nil {
		return target{}, err
	}
	key, err := s.invokeKey(id)
	if err != nil {
		return target{}, err
	}
	t := target{id, s.http, request(s.http, "/v1/functions/hello/invoke", input, "Authorization: Bearer "+key), []byte(output)}
	return t, callEach([]target{t}, 1)
}

func (c *crowded) grow(ctx context.Context, b *bench, n int) error {
	for len(c.all) < n {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		t, err := c.idleTenant(fmt.Sprintf("idle-%d", len(c.all)))
		if err != nil {
			return err
		}
		c.all = append(c.all, t)
		if len(c.all)%100 == 0 {
			b.progress("%s: %d tenants", c.isolation, len(c.all))
		}
	}
	return c.settle(4)
}

// cost compares the calls of one tenant among n with those of one that is alone.
func (c *crowded) cost(ctx context.Context, b *bench, n int) error {
	targets := [2]target{c.alone, c.all[0]}
	var meters [2]meter
	for i, s := range []*service{c.single, c.service} {
		m, err := s.meter()
		if err != nil {
			return err
		}
		meters[i] = m
		if _, err := load(targets[i], 8, time.Second); err != nil {
			return err
		}
	}
	var got [2][]figures
	for round := range b.rounds {
		for i := range targets {
			at := (round + i) % len(targets)
			f, err := meters[at].measured(targets[at], 1, b.burst/4)
			if err != nil {
				return err
			}
			got[at] = append(got[at], f)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	cpu := func(f figures) float64 { return us(f.process + f.sandboxes) }
	p50 := func(f figures) float64 { return ms(f.p50) }
	for _, of := range []struct {
		what, unit string
		read       func(figures) float64
	}{{"p50", "ms", p50}, {"CPU", "us", cpu}} {
		r := ratios(got[1], got[0], of.read)
		b.atMost(fmt.Sprintf("%d tenants: %s of a call against one tenant's, %s", n, of.what, c.isolation), median(r), tenantsBarCost, " x",
			fmt.Sprintf("(%.3f against %.3f %s, spread %.2f-%.2f)", medianOf(got[1], of.read), medianOf(got[0], of.read), of.unit, slices.Min(r), slices.Max(r)))
	}
	return nil
}

// idle measures what n tenants that nobody calls hold and burn, the service's own processes and its warm containers included.
func (c *crowded) idle(ctx context.Context, b *bench, n int) error {
	if err := c.frozen(n); err != nil {
		return err
	}
	after, err := familyPSS(c.pid)
	if err != nil {
		return err
	}
	time.Sleep(12 * time.Second) // under gVisor warm ones stop only when nobody has claimed any for 10 s
	before, err := familyCPU(c.pid)
	if err != nil {
		return err
	}
	select {
	case <-time.After(tenantsBurn):
	case <-ctx.Done():
		return ctx.Err()
	}
	burned, err := familyCPU(c.pid)
	if err != nil {
		return err
	}
	b.atMost(fmt.Sprintf("memory per idle tenant of %d (PSS, our processes included), %s", n, c.isolation),
		float64(after-c.empty)/float64(n)/(1<<20), tenantsBarMemory[c.isolation], " MiB", "")
	b.atMost(fmt.Sprintf("%d idle tenants and the service burn, %s", n, c.isolation),
		(burned-before).Seconds()/tenantsBurn.Seconds()*100, tenantsBarBurn, " % of a core", "")
	return nil
}

// frozen waits until n containers are.
func (c *crowded) frozen(n int) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		var p poolStatus
		if err := c.manage("GET", "/v1/pool", "", nil, &p); err != nil {
			return err
		}
		if p.Frozen >= n {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d tenants' containers are frozen", p.Frozen, n)
		}
	}
}

// thaw calls frozen tenants twice each, on one connection: what the first call takes longer than the second is the thaw's.
func (c *crowded) thaw(b *bench) error {
	conn, err := dial(c.all[0])
	if err != nil {
		return err
	}
	defer conn.conn.Close()
	var extra, first, second []float64
	for i := range tenantsThaws {
		conn.t = c.all[len(c.all)*i/tenantsThaws]
		took := make([]float64, 2)
		for k := range took {
			began := time.Now()
			if err := conn.once(); err != nil {
				return err
			}
			took[k] = ms(time.Since(began))
			if conn.thawed != (k == 0) {
				return fmt.Errorf("call %d of %s: thawed is %t", k+1, conn.t.name, conn.thawed)
			}
		}
		first, second, extra = append(first, took[0]), append(second, took[1]), append(extra, took[0]-took[1])
	}
	slices.Sort(first)
	b.atMost(fmt.Sprintf("a thaw adds, p50 of %d, %s", tenantsThaws, c.isolation), median(extra), tenantsBarThaw, " ms",
		fmt.Sprintf("(%.2f against %.2f ms; p99 of the first calls %.2f ms)", median(first), median(second), quantile(first, 0.99)))
	return nil
}
