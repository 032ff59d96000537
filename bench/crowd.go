package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"paddock/pool"
)

// The crowd section: many tenants that nobody has seen call at the same moment, and far fewer warm containers are there.
const (
	crowdTenants   = 50
	crowdPool      = 8
	crowdReference = 16 // containers that the engine makes alone in a round
	crowdBar       = 1.3
	crowdTimeout   = "60s"
)

// crowd compares how long the slowest twentieth of them waits with what the engine alone needs to make a container for each, as many
// at a time as the pool makes.
func (b *bench) crowd(ctx context.Context) error {
	return b.inEach(ctx, "crowd", b.crowdIn, "--min-ready", fmt.Sprint(crowdPool))
}

func (b *bench) crowdIn(ctx context.Context, s *service) error {
	raw, err := b.startEngine(ctx, s)
	if err != nil {
		return err
	}
	defer raw.stop()
	if err := s.manage("POST", "/v1/pool/resize", "", map[string]any{"minReady": crowdPool, "maxReady": crowdPool}, nil); err != nil {
		return err
	}
	var ratio, alone, p50, p95 []float64
	for round := range b.rounds {
		if err := s.settle(crowdPool); err != nil {
			return err
		}
		each, err := raw.startMany(ctx, crowdReference, pool.DefaultCreateParallel)
		if err != nil {
			return err
		}
		took, err := s.crowdOnce(round)
		if err != nil {
			return err
		}
		slices.Sort(took)
		ideal := each * crowdTenants / pool.DefaultCreateParallel
		alone = append(alone, ms(each))
		p50 = append(p50, ms(quantile(took, 0.50)))
		p95 = append(p95, ms(quantile(took, 0.95)))
		ratio = append(ratio, quantile(took, 0.95).Seconds()/ideal.Seconds())
		b.progress("round %d/%d: p50 %.0f ms, p95 %.0f ms; the engine alone %.0f ms a container", round+1, b.rounds,
			ms(quantile(took, 0.50)), ms(quantile(took, 0.95)), ms(each))
	}
	b.atMost(fmt.Sprintf("%d new tenants at once, %d warm: p95 against the engine's creates, %s", crowdTenants, crowdPool, s.isolation),
		median(ratio), crowdBar, " x", fmt.Sprintf("(p50 %.0f, p95 %.0f ms; a create %.0f ms with %d at a time; spread %.2f-%.2f)",
			median(p50), median(p95), median(alone), pool.DefaultCreateParallel, slices.Min(ratio), slices.Max(ratio)))
	return nil
}

// crowdOnce makes tenants, has all of them call at once, and deletes them. A call that fails is an error.
func (s *service) crowdOnce(round int) ([]time.Duration, error) {
	body, err := json.Marshal(map[string]any{"source": "module.exports = " + handler + ";", "input": json.RawMessage(input)})
	if err != nil {
		return nil, err
	}
	var clients []*client
	for i := range crowdTenants {
		id := fmt.Sprintf("crowd-%d-%d", round, i)
		if err := s.tenant(id, nil); err != nil {
			return nil, err
		}
		key, err := s.invokeKey(id)
		if err != nil {
			return nil, err
		}
		req := request(s.http, "/v1/run?timeout="+crowdTimeout, string(body), "Authorization: Bearer "+key)
		c, err := dial(target{id, s.http, req, []byte(output)})
		if err != nil {
			return nil, err
		}
		defer c.conn.Close()
		clients = append(clients, c)
	}
	if err := s.settle(crowdPool); err != nil {
		return nil, err
	}
	took := make([]time.Duration, len(clients))
	var group errgroup.Group
	started := time.Now()
	for i, c := range clients {
		group.Go(func() error {
			err := c.once()
			took[i] = time.Since(started)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, c := range clients {
		if err := s.manage("DELETE", "/v1/tenants/"+c.t.name, "", nil, nil); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// startMany makes n containers, so many at a time, and returns how long each took. They are destroyed when all are there: that is no
// part of it.
func (r *bareEngine) startMany(ctx context.Context, n, parallel int) (each time.Duration, err error) {
	destroy := make([]func() error, n)
	var group errgroup.Group
	group.SetLimit(parallel)
	started := time.Now()
	for i := range n {
		group.Go(func() (err error) {
			destroy[i], err = r.make(ctx)
			return err
		})
	}
	err = group.Wait()
	took := time.Since(started)
	for _, d := range destroy {
		if d == nil {
			continue
		}
		if destroyErr := d(); err == nil {
			err = destroyErr
		}
	}
	return took * time.Duration(parallel) / time.Duration(n), err
}
