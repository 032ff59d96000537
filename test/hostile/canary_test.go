package hostile

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	canaryTenant = "canary"
	canaryEvery  = 50 * time.Millisecond // 20 calls a second
	canaryLimit  = 20 * time.Second      // its calls' deadline
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

	mu                sync.Mutex
	calls             int
	failures          []string
	container         string
	counts            map[int]int     // which call has which of its container's counts
	times             []time.Duration // since the last lap
	lapBegan          time.Time
	lapFailures       int
	lapIdle, lapWhole int64
}

// The function counts in its container, so that a repeated call shows.
const canarySource = `const planted = %q;
let n = 0;
module.exports = async (input) => ({ nonce: input.nonce, n: ++n, length: planted.length + input.secret.length });`

func startCanary(t *testing.T, s *service, p *pulse) *canary {
	t.Helper()
	c := &canary{s: s, pulse: p, counts: map[int]int{}, lapBegan: time.Now(), secrets: []string{"planted-in-code-" + secret(t), "planted-in-input-" + secret(t)}}
	var err error
	if c.key, err = s.admit(canaryTenant, map[string]any{"idleTtl": "3600s", "maxContainers": 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.deploy(canaryTenant, "echo", fmt.Sprintf(canarySource, c.secrets[0])); err != nil {
		t.Fatal(err)
	}
	c.resume()
	return c
}

// resume calls again after end. An agent that is connected to anew begins its modules anew.
func (c *canary) resume() {
	c.counts = map[int]int{}
	c.stop = make(chan struct{})
	c.done.Go(func() { c.run(c.stop) })
}

// run starts a call at every tick, however long the ones before it take.
func (c *canary) run(stop <-chan struct{}) {
	tick := time.NewTicker(canaryEvery)
	defer tick.Stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	c.call(1) // it gets the container
	for n := 2; ; n++ {
		calls.Go(func() { c.call(n) })
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

// end stops the calls and waits for those under way. Idempotent.
func (c *canary) end() {
	if c.stop != nil {
		close(c.stop)
	}
	c.stop = nil
	c.done.Wait()
}

// call makes one call and checks every byte of its answer.
func (c *canary) call(n int) {
	began := time.Now()
	count, container, err := c.ask(n)
	took := time.Since(began)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	c.times = append(c.times, took)
	switch {
	case err != nil:
		c.failures = append(c.failures, fmt.Sprintf("call %d after %v: %v", n, took.Round(time.Millisecond), err))
	case c.container == "":
		c.container = container
	case c.container != container:
		c.failures = append(c.failures, fmt.Sprintf("call %d was served by %s, not by %s", n, container, c.container))
		c.container, c.counts = container, map[int]int{}
	case c.counts[count] != 0:
		c.failures = append(c.failures, fmt.Sprintf("call %d has the count of call %d", n, c.counts[count]))
	}
	c.counts[count] = n
}

// ask makes one call. What it answers but for count is known before.
func (c *canary) ask(n int) (count int, container string, err error) {
	nonce := fmt.Sprintf("nonce-%d", n)
	input := fmt.Sprintf(`{"nonce":%q,"secret":%q}`, nonce, c.secrets[1])
	req, err := http.NewRequest("POST", c.s.URL+"/v1/functions/echo/invoke?timeout=20s", strings.NewReader(input))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	res, err := c.s.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, "", err
	}
	var said struct{ N int }
	_ = json.Unmarshal(got, &said) // the comparison tells
	want := fmt.Sprintf(`{"nonce":%q,"n":%d,"length":%d}`, nonce, said.N, len(c.secrets[0])+len(c.secrets[1]))
	if res.StatusCode != http.StatusOK || string(got) != want {
		return 0, "", fmt.Errorf("%s: %.300s, want %s", res.Status, got, want)
	}
	return said.N, res.Header.Get("Paddock-Container"), nil
}

// complaints returns what went wrong since the first n failures, and how many there are.
func (c *canary) complaints(n int) ([]string, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.failures[n:]), len(c.failures)
}

// lap is how the canary fared for a while.
type lap struct {
	calls, failures int
	p50, p99        time.Duration
	late            time.Duration // 99th percentile of the machine's own lateness meanwhile
	spare           float64       // share of the machine's CPU that nobody wanted meanwhile
}

// enoughSpare is from when on a slow canary is the attackers' fault: without, everybody is slow, whoever took the CPU.
const enoughSpare = 0.30

// mostCalm bounds what is taken for calm.
const mostCalm = 100 * time.Millisecond

// lap ends a lap and begins the next.
func (c *canary) lap() (l lap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.calls, l.failures = len(c.times), len(c.failures)-c.lapFailures
	l.late = c.pulse.p99(c.lapBegan)
	if l.calls > 0 {
		slices.Sort(c.times)
		l.p50, l.p99 = c.times[l.calls/2], c.times[l.calls*99/100]
	}
	idle, whole := machineTime()
	l.spare = float64(idle-c.lapIdle) / max(1, float64(whole-c.lapWhole))
	c.times, c.lapBegan, c.lapFailures, c.lapIdle, c.lapWhole = nil, time.Now(), len(c.failures), idle, whole
	return l
}

func (l lap) String() string {
	text := fmt.Sprintf("%d calls, %d failed, p50 %.1f ms, p99 %.1f ms", l.calls, l.failures, l.p50.Seconds()*1000, l.p99.Seconds()*1000)
	text += fmt.Sprintf(", %.0f %% of the machine to spare", 100*l.spare)
	if l.late > 0 {
		text += fmt.Sprintf(" (machine late by %d ms)", l.late.Milliseconds())
	}
	return text
}

// bound is what the 99th percentile may be where it is base without attacks. What the machine itself was late by comes on
// top, for each wake-up between a call and its answer.
func (l lap) bound(base lap) time.Duration {
	calm := min(base.p99, mostCalm)
	return max(2*calm, calm+20*time.Millisecond) + hops*l.late
}

// machineTime returns how long the machine's CPUs had nothing to do, and how long they were there, in ticks.
func machineTime() (idle, whole int64) {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line) {
		n, _ := strconv.ParseInt(f, 10, 64)
		if i == 4 {
			idle = n
		}
		if i <= 8 { // what follows is counted among these
			whole += n
		}
	}
	return idle, whole
}
