package chaos

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

//go:embed code/echo.js
var echoText string

//go:embed code/drip.js
var dripText string

func echoSource(tenant string, version int64) string {
	return strings.Replace(strings.Replace(echoText, "TENANT", tenant, 1), "version = 0", fmt.Sprintf("version = %d", version), 1)
}

func dripSource(tenant string) string { return strings.Replace(dripText, "TENANT", tenant, 1) }

// The load: 100 calls a second by all tenants together, and one long stream of each.
const (
	loadTenants = 8
	loadEvery   = 80 * time.Millisecond
	callTimeout = 5 * time.Second
	streamTime  = 60 * time.Second
	// Where make test runs it beside other tests, a quarter of the load leaves them room, and calls may take their time.
	shortEvery   = 320 * time.Millisecond
	shortTimeout = 30 * time.Second
	// mostOpen bounds a tenant's calls under way, so that a cluster that has stopped does not take this process along. It is more than
	// come in the time of one: a tenant that holds back while its calls hang would not see when it is served again.
	mostOpen = 100
)

// loadPolicy has one container serve a tenant, so that two of them are a surplus, and lets faults cost containers. Streams end within
// drainTimeout: else one fault's surplus would cut them while the next one is looked at.
var loadPolicy = map[string]any{"maxContainers": 1, "callsPerContainer": 64, "claimBurst": 100, "claimsPerSecond": 20, "idleTtl": "3600s", "drainTimeout": "70s"}

// balancer is what stands before routers: it sends calls to those that say that they are ready. It repeats nothing.
type balancer struct {
	fronts []*lane
	next   atomic.Int64
	stop   chan struct{}
	work   sync.WaitGroup
}

// lane is the way to one router.
type lane struct {
	url    string
	client *http.Client
	up     atomic.Bool
	out    atomic.Bool // taken out of the rotation
}

func newBalancer(c *cluster) *balancer {
	b := &balancer{stop: make(chan struct{})}
	for _, f := range c.routers {
		l := &lane{url: f.url, client: &http.Client{Transport: &http.Transport{
			MaxIdleConnsPerHost: 128, DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, DisableCompression: true,
		}}}
		l.up.Store(true)
		b.fronts = append(b.fronts, l)
		b.work.Go(func() { b.watch(l) })
	}
	return b
}

// watch asks a router whether it is ready, as balancers do.
func (b *balancer) watch(l *lane) {
	probe := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		res, err := probe.Get(l.url + "/readyz")
		if err == nil {
			res.Body.Close()
		}
		l.up.Store(err == nil && res.StatusCode == http.StatusOK)
		select {
		case <-b.stop:
			return
		case <-tick.C:
		}
	}
}

// pick chooses a router in turn.
func (b *balancer) pick() int {
	first := int(b.next.Add(1))
	for i := range b.fronts {
		at := (first + i) % len(b.fronts)
		if l := b.fronts[at]; l.up.Load() && !l.out.Load() {
			return at
		}
	}
	return first % len(b.fronts)
}

func (b *balancer) close() {
	close(b.stop)
	b.work.Wait()
	for _, l := range b.fronts {
		l.client.CloseIdleConnections()
	}
}

// caller calls as tenants do, and keeps what came of it.
type caller struct {
	h     *history
	b     *balancer
	nonce atomic.Int64
}

// answer is what the functions say.
type answer struct {
	Tenant, Planted, Box string
	Version, Nonce       int64
	Starts               [][2]int64
	Last                 bool
}

// options of one call.
type options struct {
	ms      int // how long the code takes
	timeout time.Duration
	router  int    // -1: the balancer's
	name    string // of the function, "" = echo
	query   string
}

// call makes one call and keeps it.
func (c *caller) call(tenant, key string, o options) sample {
	if o.timeout == 0 {
		o.timeout = callTimeout
		if !*long {
			o.timeout = shortTimeout
		}
	}
	if o.router < 0 {
		o.router = c.b.pick()
	}
	if o.name == "" {
		o.name = "echo"
	}
	s := sample{tenant: tenant, nonce: c.nonce.Add(1), router: o.router, began: c.h.now()}
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout+10*time.Second)
	defer cancel()
	l := c.b.fronts[o.router]
	body := fmt.Sprintf(`{"nonce":%d,"ms":%d}`, s.nonce, o.ms)
	req, err := http.NewRequestWithContext(ctx, "POST", fmt.Sprintf("%s/v1/functions/%s/invoke?timeout=%s%s", l.url, o.name, o.timeout, o.query), strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	var text []byte
	res, err := l.client.Do(req)
	if err == nil {
		text, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	s.ended = c.h.now()
	if err != nil {
		s.outcome, s.detail = "lost", err.Error()
		c.h.add(s, nil)
		return s
	}
	s, starts := s.of(res, text)
	c.h.add(s, starts)
	return s
}

// of completes a sample from an answer.
func (s sample) of(res *http.Response, text []byte) (sample, [][2]int64) {
	s.container, s.started = res.Header.Get("Paddock-Container"), res.Header.Get("Paddock-Started")
	if res.StatusCode != http.StatusOK {
		var problem struct{ Cause, Detail string }
		_ = json.Unmarshal(text, &problem)
		s.outcome, s.cause, s.detail = res.Header.Get("Paddock-Error"), problem.Cause, problem.Detail
		if s.outcome == "" {
			s.outcome, s.detail = "lost", fmt.Sprintf("%s without a kind: %.100s", res.Status, text)
		}
		return s, nil
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		s.outcome, s.detail = "wrong", fmt.Sprintf("%.200s", text)
		return s, nil
	}
	return s.heard(a), a.Starts
}

// heard judges what the code said.
func (s sample) heard(a answer) sample {
	s.box, s.version, s.outcome = a.Box, a.Version, "ok"
	if a.Tenant != s.tenant || a.Planted != s.tenant || a.Nonce != s.nonce || a.Box == "" {
		s.outcome, s.detail = "wrong", fmt.Sprintf("%+v", a)
	}
	return s
}

// stream reads one long answer to its end.
func (c *caller) stream(ctx context.Context, tenant, key string, lasts time.Duration) {
	s := sample{tenant: tenant, nonce: c.nonce.Add(1), router: c.b.pick(), began: c.h.now(), stream: true}
	l := c.b.fronts[s.router]
	ctx, cancel := context.WithTimeout(ctx, lasts+30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("%s/v1/functions/drip/http/%d-%d", l.url, s.nonce, lasts.Milliseconds()), nil)
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Paddock-Timeout", (lasts + 20*time.Second).String())
	res, err := l.client.Do(req)
	if err == nil {
		s, err = s.read(res)
		res.Body.Close()
	}
	s.ended = c.h.now()
	if err != nil {
		s.outcome, s.detail = "lost", err.Error()
		if ctx.Err() != nil {
			s.outcome = "cancelled" // the load ends
		}
	}
	c.h.add(s, nil)
}

// read reads the lines of a stream. An answer that breaks off is an error.
func (s sample) read(res *http.Response) (sample, error) {
	s.started = res.Header.Get("Paddock-Started")
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		s, _ = s.of(res, text)
		return s, nil
	}
	lines := bufio.NewScanner(res.Body)
	last := false
	for lines.Scan() {
		var a answer
		if err := json.Unmarshal(bytes.TrimSpace(lines.Bytes()), &a); err != nil {
			s.outcome, s.detail = "wrong", lines.Text()
			return s, nil
		}
		if s = s.heard(a); failed(s) {
			return s, nil
		}
		last = a.Last
	}
	s.container = res.Trailer.Get("Paddock-Container")
	if err := lines.Err(); err != nil {
		return s, err
	}
	if !last {
		return s, io.ErrUnexpectedEOF
	}
	return s, nil
}

// load is the constant traffic of the tenants.
type load struct {
	caller  *caller
	keys    map[string]string
	stop    chan struct{}
	streams context.CancelFunc
	work    sync.WaitGroup
}

// names of the tenants of the load.
func loadNames() (all []string) {
	for i := range loadTenants {
		all = append(all, fmt.Sprintf("tenant-%d", i+1))
	}
	return all
}

func startLoad(c *caller, keys map[string]string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{caller: c, keys: keys, stop: make(chan struct{}), streams: cancel}
	for i, t := range loadNames() {
		l.work.Go(func() { l.unary(t, i) })
		l.work.Go(func() {
			for ctx.Err() == nil {
				c.stream(ctx, t, keys[t], streamTime)
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
			}
		})
	}
	return l
}

// unary calls at every tick, however long the calls before take.
func (l *load) unary(tenant string, phase int) {
	every := loadEvery
	if !*long {
		every = shortEvery
	}
	select {
	case <-time.After(time.Duration(phase) * every / loadTenants):
	case <-l.stop:
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	open := make(chan struct{}, mostOpen)
	var calls sync.WaitGroup
	defer calls.Wait()
	for n := 0; ; n++ {
		o := options{router: -1}
		switch { // most are short, some take a while, a few nearly a second
		case n%20 == 7:
			o.ms = 800
		case n%8 == 3:
			o.ms = 100
		}
		select {
		case open <- struct{}{}:
			calls.Go(func() {
				defer func() { <-open }()
				l.caller.call(tenant, l.keys[tenant], o)
			})
		default:
		}
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
	}
}

// end stops the load and waits for what is under way, except the streams, which are broken off.
func (l *load) end() {
	close(l.stop)
	l.streams()
	l.work.Wait()
}
