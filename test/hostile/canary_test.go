//go:build hostile

package hostile

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	canaryTenant = "canary"
	canaryEvery  = 50 * time.Millisecond // 20 calls a second
	canaryLimit  = 2 * time.Second       // an answer that takes longer is an error
)

// canary is a well-behaved tenant that is called throughout, with secrets in its code and its inputs. It must not notice
// the attacks.
type canary struct {
	s       *service
	pulse   *pulse
	key     string
	secrets []string // none of them may turn up anywhere else
	stop    chan struct{}
	done    sync.WaitGroup

	mu        sync.Mutex
	calls     int
	failures  []string
	container string
	times     []time.Duration // since the last lap
}

// The function counts in its container, so that a lost or repeated call shows.
const canarySource = `const planted = %q;
let n = 0;
module.exports = async (input) => ({ nonce: input.nonce, n: ++n, length: planted.length + input.secret.length });`

func startCanary(t *testing.T, s *service, p *pulse) *canary {
	t.Helper()
	c := &canary{s: s, pulse: p, stop: make(chan struct{}), secrets: []string{"planted-in-code-" + secret(t), "planted-in-input-" + secret(t)}}
	var err error
	if c.key, err = s.admit(canaryTenant, map[string]any{"idleTtl": "3600s"}); err != nil {
		t.Fatal(err)
	}
	if err := s.deploy(canaryTenant, "echo", fmt.Sprintf(canarySource, c.secrets[0])); err != nil {
		t.Fatal(err)
	}
	c.done.Go(c.run)
	return c
}

func (c *canary) run() {
	tick := time.NewTicker(canaryEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		c.call(n)
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
	}
}

func (c *canary) end() {
	close(c.stop)
	c.done.Wait()
}

// call makes one call and checks every byte of its answer.
func (c *canary) call(n int) {
	began := time.Now()
	container, err := c.ask(n)
	took := time.Since(began)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	c.times = append(c.times, took)
	switch {
	case err != nil:
		c.failures = append(c.failures, fmt.Sprintf("call %d after %v: %v", n, took.Round(time.Millisecond), err))
	case took > canaryLimit+c.pulse.slack(began):
		c.failures = append(c.failures, fmt.Sprintf("call %d took %v", n, took))
	case c.container == "":
		c.container = container
	case c.container != container:
		c.failures = append(c.failures, fmt.Sprintf("call %d was served by %s, not by %s", n, container, c.container))
	}
}

func (c *canary) ask(n int) (container string, err error) {
	nonce := fmt.Sprintf("nonce-%d", n)
	input := fmt.Sprintf(`{"nonce":%q,"secret":%q}`, nonce, c.secrets[1])
	req, err := http.NewRequest("POST", c.s.URL+"/v1/functions/echo/invoke?timeout=5s", strings.NewReader(input))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	res, err := c.s.http.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	want := fmt.Sprintf(`{"nonce":%q,"n":%d,"length":%d}`, nonce, n, len(c.secrets[0])+len(c.secrets[1]))
	if res.StatusCode != http.StatusOK || !bytes.Equal(got, []byte(want)) {
		return "", fmt.Errorf("%s: %.300s, want %s", res.Status, got, want)
	}
	return res.Header.Get("Paddock-Container"), nil
}

// complaints returns what went wrong since the first n failures, and how many there are.
func (c *canary) complaints(n int) ([]string, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.failures[n:]), len(c.failures)
}

// lap returns how many calls there were since the last lap, and the 99th percentile of their times.
func (c *canary) lap() (calls int, p99 time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	times := c.times
	c.times = nil
	if len(times) == 0 {
		return 0, 0
	}
	slices.Sort(times)
	return len(times), times[min(len(times)-1, len(times)*99/100)]
}
