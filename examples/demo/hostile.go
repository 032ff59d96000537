package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// hostile is act (d): scripts that want the machine are stopped while another tenant's calls go on.
func (d *demo) hostile(ctx context.Context) error {
	d.title("(d) Hostile scripts, beside a tenant that is called 20 times a second")
	for _, name := range []string{"mallory", "canary"} {
		if _, err := d.up.cli(ctx, "tenants", "create", name); err != nil {
			return err
		}
	}
	key, err := d.up.tenantKey(ctx, "mallory", "invoke")
	if err != nil {
		return err
	}
	canary, err := d.startCanary(ctx)
	if err != nil {
		return err
	}
	defer canary.stop()
	quiet := canary.during(func() { time.Sleep(2 * time.Second) })
	d.say("alone: %s", quiet)

	attacks := []struct{ file, what, kinds string }{
		{"spin.js", "while (1) {}", "timeout"},
		{"memory-bomb.js", "a memory bomb", "out_of_memory"},
		{"fork-bomb.js", "a fork bomb", "timeout sandbox_lost out_of_memory"}, // runc refuses the forks, gVisor's kernel ends
	}
	for _, a := range attacks {
		source, err := os.ReadFile(d.example("hostile", a.file))
		if err != nil {
			return err
		}
		post, _ := json.Marshal(map[string]any{"source": string(source), "name": a.file, "timeout": "3s"})
		var answer reply
		beside := canary.during(func() { answer, err = d.curl(ctx, key, "/v1/run", post) })
		if err != nil {
			return err
		}
		kind := answer.header["paddock-error"]
		if err := d.check(kind != "" && slices.Contains(strings.Fields(a.kinds), kind),
			"%s ended as %s (HTTP %d) in %s%s", a.what, kind, answer.status, answer.took, answer.unless(answer.status)); err != nil {
			return err
		}
		if err := d.check(beside.failed == 0 && beside.calls > 0, "the other tenant meanwhile: %s", beside); err != nil {
			return err
		}
	}
	after := canary.during(func() { time.Sleep(2 * time.Second) })
	if err := d.check(after.failed == 0 && after.calls > 0, "the other tenant afterwards: %s", after); err != nil {
		return err
	}
	out, err := d.up.cli(ctx, "pool")
	if err != nil {
		return err
	}
	d.say("the pool now:\n     %s", strings.ReplaceAll(strings.TrimSpace(out), "\n", "\n     "))
	return nil
}

// canary calls one function 20 times a second and remembers how it went.
type canary struct {
	mu       sync.Mutex
	took     []time.Duration
	failures []string
	cancel   context.CancelFunc
	done     sync.WaitGroup
}

func (d *demo) startCanary(ctx context.Context) (*canary, error) {
	if _, err := d.up.cli(ctx, "deploy", d.example("functions", "quote.js"), "--name", "quote", "--tenant", "canary"); err != nil {
		return nil, err
	}
	key, err := d.up.tenantKey(ctx, "canary", "invoke")
	if err != nil {
		return nil, err
	}
	c := &canary{}
	ctx, c.cancel = context.WithCancel(ctx)
	one := func() {
		defer c.done.Done()
		started := time.Now()
		problem := callQuote(ctx, d.up.url, key)
		c.mu.Lock()
		defer c.mu.Unlock()
		if problem == "" {
			c.took = append(c.took, time.Since(started))
		} else if ctx.Err() == nil {
			c.failures = append(c.failures, problem)
		}
	}
	c.done.Add(1)
	go func() {
		defer c.done.Done()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				c.done.Add(1)
				go one()
			}
		}
	}()
	return c, nil
}

func callQuote(ctx context.Context, url, key string) string {
	req, err := http.NewRequestWithContext(ctx, "POST", url+"/v1/functions/quote/invoke?timeout=5s",
		strings.NewReader(`{"country":"DE","items":[{"cents":100,"quantity":1}]}`))
	if err != nil {
		return err.Error()
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || string(body) != `{"net":100,"vat":19,"gross":119}` {
		return fmt.Sprintf("%d %s %v", res.StatusCode, body, err)
	}
	return ""
}

func (c *canary) stop() {
	c.cancel()
	c.done.Wait()
}

// span is how the canary fared during something.
type span struct {
	calls, failed int
	p50, max      time.Duration
	first         string // failure
}

func (s span) String() string {
	text := fmt.Sprintf("%d calls, %d failed, p50 %.1f ms, slowest %.1f ms", s.calls, s.failed,
		float64(s.p50.Microseconds())/1000, float64(s.max.Microseconds())/1000)
	if s.first != "" {
		text += "; first failure: " + s.first
	}
	return text
}

func (c *canary) during(f func()) span {
	c.mu.Lock()
	from, failedFrom := len(c.took), len(c.failures)
	c.mu.Unlock()
	f()
	c.mu.Lock()
	took, failures := slices.Clone(c.took[from:]), slices.Clone(c.failures[failedFrom:])
	c.mu.Unlock()
	slices.Sort(took)
	s := span{calls: len(took) + len(failures), failed: len(failures)}
	if len(took) > 0 {
		s.p50, s.max = took[len(took)/2], took[len(took)-1]
	}
	if len(failures) > 0 {
		s.first = failures[0]
	}
	return s
}
