package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// target is something that answers one fixed HTTP/1.1 request.
type target struct {
	name string
	addr string // host:port
	req  []byte // the whole request
	want []byte // the body that must come back
}

// request makes the bytes of a keep-alive POST.
func request(addr, path, body string, headers ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", path, addr, len(body))
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n" + body)
	return b.Bytes()
}

// figures are what one burst of load measured.
type figures struct {
	calls              int
	perSecond          float64
	p50, p99           time.Duration
	process, sandboxes time.Duration // CPU per call, where a meter was there
}

// load calls t from conns connections for a time. The client is small on purpose: it shares the cores with what it measures.
func load(t target, conns int, d time.Duration) (figures, error) {
	clients := make([]*client, conns)
	for i := range clients {
		c, err := dial(t)
		if err != nil {
			return figures{}, err
		}
		defer c.conn.Close()
		clients[i] = c
	}
	started := time.Now()
	end := started.Add(d)
	took := make([][]time.Duration, conns)
	errs := make([]error, conns)
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			took[i], errs[i] = c.until(end)
		}()
	}
	wg.Wait()
	elapsed := time.Since(started)
	if err := errors.Join(errs...); err != nil {
		return figures{}, fmt.Errorf("%s: %w", t.name, err)
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	return figures{
		calls: len(all), perSecond: float64(len(all)) / elapsed.Seconds(), p50: quantile(all, 0.50), p99: quantile(all, 0.99),
	}, nil
}

// client is one keep-alive connection.
type client struct {
	t    target
	conn net.Conn
	r    *bufio.Reader
	body []byte

	thawed bool // the last answer's container was frozen when its call came
}

func dial(t target) (*client, error) {
	conn, err := net.Dial("tcp", t.addr)
	if err != nil {
		return nil, err
	}
	return &client{t: t, conn: conn, r: bufio.NewReaderSize(conn, 16<<10)}, nil
}

func (c *client) until(end time.Time) ([]time.Duration, error) {
	took := make([]time.Duration, 0, 1<<14)
	now := time.Now()
	for now.Before(end) {
		if err := c.once(); err != nil {
			return took, err
		}
		then := now
		now = time.Now()
		took = append(took, now.Sub(then))
	}
	return took, nil
}

// once sends the request and reads one answer, which must be 200 with the wanted body.
func (c *client) once() error {
	if _, err := c.conn.Write(c.t.req); err != nil {
		return err
	}
	status, length, chunked := 0, -1, false
	c.thawed = false
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		if status == 0 {
			if len(line) < 12 {
				return fmt.Errorf("status line %q", line)
			}
			status, _ = strconv.Atoi(string(line[9:12]))
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case len(name) == 14 && bytes.EqualFold(name, []byte("content-length")):
			length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
		case len(name) == 13 && bytes.EqualFold(name, []byte("paddock-start")):
			c.thawed = bytes.HasSuffix(value, []byte("thawed"))
		case len(name) == 17 && bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = true
		}
	}
	if chunked || length < 0 {
		return fmt.Errorf("answer %d without a Content-Length", status)
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	if _, err := io.ReadFull(c.r, c.body); err != nil {
		return err
	}
	if status != 200 || (c.t.want != nil && !bytes.Equal(c.body, c.t.want)) {
		return fmt.Errorf("answered %d %.200s", status, c.body)
	}
	return nil
}

// quantile of sorted values; 0 if there are none.
func quantile[T any](sorted []T, q float64) T {
	var zero T
	if len(sorted) == 0 {
		return zero
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return quantile(v, 0.5)
}
