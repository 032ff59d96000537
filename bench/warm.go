package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const (
	handler = `({ user }) => ({ hello: user.email, roles: ["customer"], ok: true })`
	input   = `{"user":{"email":"a@b.c"}}`
	output  = `{"hello":"a@b.c","roles":["customer"],"ok":true}`
)

// bareServer is the limit: the same handler behind node's own http server, no sandbox, no limits, no logs.
const bareServer = `
const http = require('http');
const handler = ` + handler + `;
const server = http.createServer((req, res) => {
  const parts = [];
  req.on('data', (d) => parts.push(d));
  req.on('end', () => {
    const body = JSON.stringify(handler(JSON.parse(Buffer.concat(parts))));
    res.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
    res.end(body);
  });
});
server.keepAliveTimeout = 600000;
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
`

// warm compares warm calls of one tenant with bare node: 32 connections, then one.
func (b *bench) warm(ctx context.Context) error {
	services := map[string]*service{}
	for _, isolation := range []string{"runc", "gvisor"} {
		b.progress("starting paddock up (%s)", isolation)
		s, err := b.startService(ctx, filepath.Join(b.dir, "warm-"+isolation), isolation, "--min-ready", "1")
		if err != nil {
			return err
		}
		defer s.stop()
		services[isolation] = s
	}
	bare, barePID, stop, err := b.startBare(services["runc"].dir, bareServer)
	if err != nil {
		return err
	}
	defer stop()
	targets := []target{bare}
	meters := map[string]meter{"bare": {pid: barePID}}
	for _, isolation := range []string{"runc", "gvisor"} {
		t, err := services[isolation].warmTarget()
		if err != nil {
			return err
		}
		targets = append(targets, t)
		if meters[isolation], err = services[isolation].meter(); err != nil {
			return err
		}
	}
	for _, t := range targets { // compile, optimise, fill caches
		if _, err := load(t, 32, 3*time.Second); err != nil {
			return err
		}
	}
	many, one := map[string][]figures{}, map[string][]figures{}
	for round := range b.rounds {
		for i := range targets {
			t := targets[(round+i)%len(targets)]
			f, err := meters[t.name].measured(t, 32, b.burst)
			if err != nil {
				return err
			}
			many[t.name] = append(many[t.name], f)
			if f, err = load(t, 1, b.burst/2); err != nil {
				return err
			}
			one[t.name] = append(one[t.name], f)
		}
		b.progress("round %d/%d: bare %.0f, runc %.0f, gvisor %.0f calls/s", round+1, b.rounds,
			many["bare"][round].perSecond, many["runc"][round].perSecond, many["gvisor"][round].perSecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	for _, bar := range []struct {
		isolation string
		rate, p50 float64
	}{{"runc", 0.9, 2.5}, {"gvisor", 0.6, 5}} {
		rate := ratios(many[bar.isolation], many["bare"], perSecond)
		b.atLeast("warm HTTP, 32 connections, calls/s against bare node, "+bar.isolation, median(rate), bar.rate, " x",
			fmt.Sprintf("(%.0f against %.0f/s, spread %.2f-%.2f)", medianOf(many[bar.isolation], perSecond), medianOf(many["bare"], perSecond), slices.Min(rate), slices.Max(rate)))
		p50 := ratios(one[bar.isolation], one["bare"], func(f figures) float64 { return ms(f.p50) })
		b.atMost("warm HTTP, 1 connection, p50 against bare node, "+bar.isolation, median(p50), bar.p50, " x",
			fmt.Sprintf("(spread %.2f-%.2f)", slices.Min(p50), slices.Max(p50)))
	}
	for _, t := range targets {
		process := medianOf(many[t.name], func(f figures) float64 { return us(f.process) })
		sandboxes := medianOf(many[t.name], func(f figures) float64 { return us(f.sandboxes) })
		b.figure("warm HTTP, 32 connections, CPU per call, "+t.name, process+sandboxes, " us",
			fmt.Sprintf("(%.1f in the server, %.1f in sandboxes)", process, sandboxes))
	}
	return nil
}

func ratios(a, base []figures, of func(figures) float64) []float64 {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = of(a[i]) / of(base[i])
	}
	return r
}

func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

func perSecond(f figures) float64 { return f.perSecond }

func medianOf(f []figures, of func(figures) float64) float64 {
	v := make([]float64, len(f))
	for i := range f {
		v[i] = of(f[i])
	}
	return median(v)
}

// warmTarget deploys the handler for a tenant of its own, called with a tenant's key.
func (s *service) warmTarget() (target, error) {
	unlimited := map[string]any{"concurrency": 1000, "ratePerSecond": 1e6, "rateBurst": 1000000, "maxContainers": 1, "callsPerContainer": 64}
	if err := s.tenant("warm", unlimited); err != nil {
		return target{}, err
	}
	if err := s.deploy("warm", "hello", "module.exports = "+handler+";"); err != nil {
		return target{}, err
	}
	key, err := s.invokeKey("warm")
	if err != nil {
		return target{}, err
	}
	return target{s.isolation, s.http, request(s.http, "/v1/functions/hello/invoke", input, "Authorization: Bearer "+key), []byte(output)}, nil
}

// startBare runs a bare server on the same node binary that the sandboxes have. It says its port.
func (b *bench) startBare(serviceDir, source string) (t target, pid int, stop func(), err error) {
	nodes, err := filepath.Glob(filepath.Join(serviceDir, "data", "images", "*", "rootfs", "paddock", "bin", "node"))
	if err != nil || len(nodes) == 0 {
		return t, 0, nil, fmt.Errorf("no node binary under %s (%v)", serviceDir, err)
	}
	file := filepath.Join(b.dir, "bare.js")
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		return t, 0, nil, err
	}
	cmd := exec.Command(nodes[0], file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return t, 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return t, 0, nil, err
	}
	stop = func() { cmd.Process.Kill(); cmd.Wait() }
	var port int
	if _, err := fmt.Fscan(out, &port); err != nil {
		stop()
		return t, 0, nil, fmt.Errorf("bare node server: %w", err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	return target{"bare", addr, request(addr, "/", input), []byte(output)}, cmd.Process.Pid, stop, nil
}

// newTenant measures the first answer of a tenant that nobody has seen, upload by POST included, with a warm pool.
func (b *bench) newTenant(ctx context.Context) error {
	const samples = 120
	body, err := json.Marshal(map[string]any{"source": "module.exports = " + handler + ";", "input": json.RawMessage(input)})
	if err != nil {
		return err
	}
	for _, bar := range []struct {
		isolation string
		p50, p99  float64
	}{{"runc", 3, 15}, {"gvisor", 5, 25}} {
		s, err := b.startService(ctx, filepath.Join(b.dir, "new-"+bar.isolation), bar.isolation, "--min-ready", "4")
		if err != nil {
			return err
		}
		took, err := s.firstAnswers(ctx, samples, body)
		if stopErr := s.stop(); err == nil {
			err = stopErr
		}
		if err != nil {
			return err
		}
		slices.Sort(took)
		detail := fmt.Sprintf("(%d tenants, slowest %.1f ms)", samples, ms(took[len(took)-1]))
		b.atMost("new tenant by POST /v1/run, pool warm, p50, "+bar.isolation, ms(quantile(took, 0.50)), bar.p50, " ms", detail)
		b.atMost("new tenant by POST /v1/run, pool warm, p99, "+bar.isolation, ms(quantile(took, 0.99)), bar.p99, " ms", detail)
	}
	return nil
}

func (s *service) firstAnswers(ctx context.Context, samples int, body []byte) ([]time.Duration, error) {
	var took []time.Duration
	for i := range samples {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		id := fmt.Sprintf("new-%d", i)
		if err := s.tenant(id, nil); err != nil {
			return nil, err
		}
		key, err := s.invokeKey(id)
		if err != nil {
			return nil, err
		}
		if err := s.settle(4); err != nil {
			return nil, err
		}
		c, err := dial(target{"new tenant", s.http, request(s.http, "/v1/run", string(body), "Authorization: Bearer "+key), []byte(output)})
		if err != nil {
			return nil, err
		}
		started := time.Now()
		err = c.once()
		took = append(took, time.Since(started))
		c.conn.Close()
		if err != nil {
			return nil, err
		}
		if err := s.manage("DELETE", "/v1/tenants/"+id, "", nil, nil); err != nil {
			return nil, err
		}
	}
	return took, nil
}
