package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// etcd counts the store's writes: at most one per assignment, none per call.
func (b *bench) etcd(ctx context.Context) error {
	s, err := b.startService(ctx, filepath.Join(b.dir, "etcd"), "runc", "--min-ready", "4")
	if err != nil {
		return err
	}
	defer s.stop()
	const tenants, calls = 20, 200
	body, err := json.Marshal(map[string]any{"source": "module.exports = " + handler + ";", "input": json.RawMessage(input)})
	if err != nil {
		return err
	}
	var runs, targets []target
	for i := range tenants {
		id := fmt.Sprintf("t-%d", i)
		if err := s.tenant(id, map[string]any{"maxContainers": 1}); err != nil {
			return err
		}
		key, err := s.invokeKey(id)
		if err != nil {
			return err
		}
		bearer := "Authorization: Bearer " + key
		runs = append(runs, target{id, s.http, request(s.http, "/v1/run", string(body), bearer), []byte(output)})
		targets = append(targets, target{id, s.http, request(s.http, "/v1/functions/hello/invoke", input, bearer), []byte(output)})
	}
	// The first call of each assigns a container; the record follows behind it. An upload would have assigned one to compile in.
	writes, err := s.writesDuring(func() error { return callEach(runs, 1) })
	if err != nil {
		return err
	}
	b.atMost("etcd writes per assignment", writes/tenants, 1, "", fmt.Sprintf("(%.0f for %d tenants)", writes, tenants))
	for _, t := range targets {
		if err := s.deploy(t.name, "hello", "module.exports = "+handler+";"); err != nil {
			return err
		}
	}
	// Once in its life a version is marked as proved, after a hundred calls: that is no write per call.
	if _, err := s.writesDuring(func() error { return callEach(targets, calls) }); err != nil {
		return err
	}
	if writes, err = s.writesDuring(func() error { return callEach(targets, calls) }); err != nil {
		return err
	}
	b.atMost("etcd writes per call", writes/(tenants*calls), 0, "", fmt.Sprintf("(%.0f for %d calls)", writes, tenants*calls))
	return nil
}

func callEach(targets []target, n int) error {
	for _, t := range targets {
		c, err := dial(t)
		if err != nil {
			return err
		}
		for range n {
			if err := c.once(); err != nil {
				c.conn.Close()
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
		c.conn.Close()
	}
	return nil
}

// writesDuring is the growth of etcd's own put counter over f and the two seconds after it, in which what is written
// behind has to be through.
func (s *service) writesDuring(f func() error) (float64, error) {
	before, err := s.metric("etcd_mvcc_put_total")
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	time.Sleep(2 * time.Second)
	after, err := s.metric("etcd_mvcc_put_total")
	return after - before, err
}

// metric sums the samples of one metric.
func (s *service) metric(name string) (float64, error) {
	req, err := http.NewRequest("GET", "http://"+s.http+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	sum, found := 0.0, false
	sc := bufio.NewScanner(res.Body)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		if !strings.HasPrefix(line, name) || len(line) == len(name) || (line[len(name)] != ' ' && line[len(name)] != '{') {
			continue
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("/metrics has no %s", name)
	}
	return sum, sc.Err()
}
