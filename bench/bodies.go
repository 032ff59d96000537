package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The bodies section: the largest input and answer that a call may have, and streams of a gibibyte each way.
const (
	bodiesLarge  = 6<<20 - 64 // of a JSON string: with its quotes it stays below what a call may have
	bodiesConns  = 4
	bodiesStream = 1 << 30
	bodiesBar    = 0.5
	bodiesGrowth = 64 // MiB by which the service's process may grow under a stream that is sixteen times as long
)

// echoHandler answers what it was given; streamHandler takes a stream, or makes one.
const echoHandler = `(input) => input`

var streamHandler = fmt.Sprintf(`(ctx, req, res) => {
  if (req.method === 'POST') {
    let n = 0;
    req.on('data', (d) => { n += d.length; });
    req.on('end', () => res.end(String(n)));
    return;
  }
  const chunk = Buffer.alloc(65536, 'x');
  let left = %d;
  const write = () => {
    while (left > 0) {
      left -= chunk.length;
      if (!res.write(chunk)) return res.once('drain', write);
    }
    res.end();
  };
  res.writeHead(200, { 'content-length': left });
  write();
}`, bodiesStream)

// bareBodies does the same behind node's own http server.
var bareBodies = `
const http = require('http');
const echo = ` + echoHandler + `;
const stream = ` + streamHandler + `;
const server = http.createServer((req, res) => {
  if (req.url !== '/echo') return stream(null, req, res);
  const parts = [];
  req.on('data', (d) => parts.push(d));
  req.on('end', () => {
    const body = JSON.stringify(echo(JSON.parse(Buffer.concat(parts))));
    res.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
    res.end(body);
  });
});
server.keepAliveTimeout = 600000;
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
`

// bodied is one server of large bodies: the service or bare node.
type bodied struct {
	echo        target
	stream      string // URL
	key         string
	echoed      []figures
	in, out     []float64 // seconds of a stream in each direction, by round
	inHW, outHW []float64 // MiB by which the process's peak was above what it held before
	pid         int
}

func (b *bench) bodies(ctx context.Context) error {
	return b.inEach(ctx, "bodies", b.bodiesIn, "--min-ready", "1")
}

func (b *bench) bodiesIn(ctx context.Context, s *service) error {
	bare, pid, stop, err := b.startBare(s.dir, bareBodies)
	if err != nil {
		return err
	}
	defer stop()
	large := `"` + strings.Repeat("x", bodiesLarge) + `"`
	bare.req, bare.want = request(bare.addr, "/echo", large), []byte(large)
	ours, err := s.bodied(large)
	if err != nil {
		return err
	}
	both := [2]*bodied{{echo: bare, stream: "http://" + bare.addr + "/", pid: pid}, ours}
	// Streams go first: what calls of 6 MiB have left in the process would hide what a stream takes.
	for _, part := range []struct {
		name    string
		measure func(*bodied) error
	}{
		{"streams", func(t *bodied) error { return t.streams(ctx) }},
		{"calls", func(t *bodied) error { return t.calls(b.burst) }},
	} {
		for round := range b.rounds + 1 { // the first compiles, optimises, grows heaps
			for i := range both {
				if err := part.measure(both[(round+i)%len(both)]); err != nil {
					return err
				}
			}
			b.progress("%s, %s, round %d/%d", s.isolation, part.name, round, b.rounds)
		}
	}
	for _, t := range both {
		t.echoed, t.in, t.out = t.echoed[1:], t.in[1:], t.out[1:]
	}
	rate := ratios(both[1].echoed, both[0].echoed, perSecond)
	b.atLeast("6 MiB in and out, calls/s against bare node, "+s.isolation, median(rate), bodiesBar, " x",
		fmt.Sprintf("(%.0f against %.0f/s, spread %.2f-%.2f)", medianOf(both[1].echoed, perSecond), medianOf(both[0].echoed, perSecond), slices.Min(rate), slices.Max(rate)))
	for _, way := range []struct {
		name       string
		bare, ours []float64
		grown      []float64
	}{{"in", both[0].in, both[1].in, ours.inHW}, {"out", both[0].out, both[1].out, ours.outHW}} {
		faster := make([]float64, len(way.ours))
		for i := range faster {
			faster[i] = way.bare[i] / way.ours[i]
		}
		b.atLeast(fmt.Sprintf("a stream of 1 GiB %s, throughput against bare node, %s", way.name, s.isolation), median(faster), bodiesBar, " x",
			fmt.Sprintf("(%.0f against %.0f MiB/s, spread %.2f-%.2f)", 1024/median(way.ours), 1024/median(way.bare), slices.Min(faster), slices.Max(faster)))
		b.atMost(fmt.Sprintf("the service's process grows by, 1 GiB %s, %s", way.name, s.isolation), slices.Max(way.grown), bodiesGrowth, " MiB", "")
	}
	return nil
}

// bodied deploys both handlers for one tenant.
func (s *service) bodied(large string) (*bodied, error) {
	const id = "bodies"
	if err := s.tenant(id, map[string]any{"maxContainers": 1, "memoryBytes": 512 << 20}); err != nil {
		return nil, err
	}
	if err := s.deploy(id, "echo", "module.exports = "+echoHandler+";"); err != nil {
		return nil, err
	}
	if err := s.deploy(id, "stream", "module.exports = "+streamHandler+";"); err != nil {
		return nil, err
	}
	key, err := s.invokeKey(id)
	if err != nil {
		return nil, err
	}
	req := request(s.http, "/v1/functions/echo/invoke", large, "Authorization: Bearer "+key)
	return &bodied{
		echo: target{s.isolation, s.http, req, []byte(large)}, stream: "http://" + s.http + "/v1/functions/stream/http/", key: key, pid: s.pid,
	}, nil
}

func (t *bodied) calls(burst time.Duration) error {
	f, err := load(t.echo, bodiesConns, burst)
	t.echoed = append(t.echoed, f)
	return err
}

func (t *bodied) streams(ctx context.Context) error {
	for _, way := range []struct {
		method      string
		body        io.Reader
		want        func(io.Reader) error
		took, grown *[]float64
	}{
		{"POST", io.LimitReader(zeros{}, bodiesStream), wantNumber, &t.in, &t.inHW},
		{"GET", nil, wantLength, &t.out, &t.outHW},
	} {
		before, err := resetPeak(t.pid)
		if err != nil {
			return err
		}
		took, err := t.one(ctx, way.method, way.body, way.want)
		if err != nil {
			return fmt.Errorf("%s %s: %w", way.method, t.stream, err)
		}
		after, err := memoryOf(t.pid, "VmHWM:")
		if err != nil {
			return err
		}
		*way.took = append(*way.took, took.Seconds())
		*way.grown = append(*way.grown, float64(after-before)/(1<<20))
	}
	return nil
}

// one sends a stream or takes one, and returns how long that took.
func (t *bodied) one(ctx context.Context, method string, body io.Reader, want func(io.Reader) error) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, method, t.stream, body)
	if err != nil {
		return 0, err
	}
	if body != nil {
		req.ContentLength = bodiesStream
	}
	if t.key != "" {
		req.Header.Set("Authorization", "Bearer "+t.key)
	}
	began := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
		return 0, fmt.Errorf("%s: %s", res.Status, b)
	}
	err = want(res.Body)
	return time.Since(began), err
}

func wantNumber(r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, 64))
	if err == nil && string(b) != strconv.Itoa(bodiesStream) {
		err = fmt.Errorf("of %d bytes %s came", bodiesStream, b)
	}
	return err
}

func wantLength(r io.Reader) error {
	n, err := io.Copy(io.Discard, r)
	if err == nil && n != bodiesStream {
		err = fmt.Errorf("%d bytes of %d came", n, bodiesStream)
	}
	return err
}

// zeros is a reader without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// resetPeak forgets the most that a process has held, and returns what it holds.
func resetPeak(pid int) (int64, error) {
	const peak = "5" // proc(5), clear_refs
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "clear_refs"), []byte(peak), 0); err != nil {
		return 0, err
	}
	return memoryOf(pid, "VmRSS:")
}

// memoryOf reads one line of a process's status in bytes.
func memoryOf(pid int, line string) (int64, error) {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(l, line); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no " + line + " in the status of a process")
}
