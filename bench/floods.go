package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "paddock/proto/paddock/v1"
)

// The floods section: what one tenant's flood does to another tenant's latency. The other calls at a steady 50 a second; its
// p99 is pooled over all rounds.
const (
	floodsRounds = 3
	floodsEvery  = 20 * time.Millisecond
	floodsFor    = 5 * time.Second
	floodsConns  = 200
	floodsNever  = `() => new Promise(() => {})`
	floodsStuck  = `() => { for (;;); }`
	floodsRatio  = 2
	floodsMS     = 20
)

// floodsCase is one way to flood. What the calls do decides which limit they meet: calls that never end hold every slot that the
// tenant has, and cost it its containers; calls that ask for a container of their own, or that a container has to be killed for,
// meet the claim budget.
type floodsCase struct {
	name   string
	source string
	query  string
	stream bool
}

var floodsCases = []floodsCase{
	{name: "HTTP over the limit, calls that never end", source: floodsNever, query: "?timeout=1s"},
	{name: "gRPC stream over the limit, calls that never end", source: floodsNever, stream: true},
	{name: "HTTP, a fresh container for each call", source: `(n) => n`, query: "?timeout=5s&fresh=true"},
	{name: "HTTP, loops that cost their container", source: floodsStuck, query: "?timeout=200ms"},
}

func (b *bench) floods(ctx context.Context) error {
	return b.inEach(ctx, "floods", b.floodsIn, "--min-ready", "4")
}

func (b *bench) floodsIn(ctx context.Context, s *service) error {
	quiet, err := s.overloadTarget("quiet", "(n) => n", nil)
	if err != nil {
		return err
	}
	if err := answers(quiet, time.Minute); err != nil {
		return err
	}
	m, err := s.meter()
	if err != nil {
		return err
	}
	for i, c := range floodsCases {
		order, err := s.floodsOrder(fmt.Sprintf("flood-%d", i), c)
		if err != nil {
			return err
		}
		if err := b.floodOf(ctx, s, quiet, c, order, m); err != nil {
			return err
		}
	}
	return nil
}

// floodsOrder makes a tenant of its own for a flood.
func (s *service) floodsOrder(tenant string, c floodsCase) (floodOrder, error) {
	if err := s.tenant(tenant, nil); err != nil {
		return floodOrder{}, err
	}
	if err := s.deploy(tenant, "flood", c.source); err != nil {
		return floodOrder{}, err
	}
	key, err := s.invokeKey(tenant)
	if err != nil {
		return floodOrder{}, err
	}
	o := floodOrder{Addr: s.http, Conns: floodsConns, For: floodsFor,
		Req: request(s.http, "/v1/functions/flood/invoke"+c.query, "0", "Authorization: Bearer "+key)}
	if c.stream {
		o.Stream = &streamOrder{Addr: s.grpc, Key: key, Function: "flood"}
	}
	return o, nil
}

// floodOf measures the quiet tenant alone and beside the flood in turn. Between rounds the pool settles.
func (b *bench) floodOf(ctx context.Context, s *service, quiet target, c floodsCase, order floodOrder, m meter) error {
	took := map[string][]time.Duration{}
	var last floodResult
	var used usage
	for range floodsRounds {
		if err := s.settle(1); err != nil {
			return err
		}
		pulse := startPulseEvery(ctx, quiet, floodsEvery)
		pulse.phase("alone")
		time.Sleep(floodsFor)
		pulse.phase("flood")
		before, err := m.read()
		if err != nil {
			return err
		}
		result, err := startOrder(ctx, order)
		if err != nil {
			return err
		}
		last, err = result()
		if err != nil {
			return err
		}
		after, err := m.read()
		if err != nil {
			return err
		}
		used.process += after.process - before.process
		used.sandboxes += after.sandboxes - before.sandboxes
		pulse.stop()
		for phase, all := range pulse.took {
			took[phase] = append(took[phase], all...)
		}
		if n := pulse.failed.Load(); n > 0 {
			b.atMost("floods: others' failures, "+c.name+", "+s.isolation, float64(n), 0, "", pulse.firstFailure())
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	for _, all := range took {
		slices.Sort(all)
	}
	alone, beside := ms(quantile(took["alone"], 0.99)), ms(quantile(took["flood"], 0.99))
	name := "floods: another's p99, " + c.name + ", " + s.isolation
	b.atMost(name, beside, max(floodsRatio*alone, alone+floodsMS), " ms", fmt.Sprintf("(%.1f alone, max %.1f, %d calls; flood %.0f/s ok, %.0f/s refused, %.0f/s failed; CPU %.0f+%.0f %%)",
		alone, ms(quantile(took["flood"], 1)), len(took["flood"]), last.OK, last.Refused, last.Failed,
		100*used.process.Seconds()/(floodsRounds*floodsFor.Seconds()), 100*used.sandboxes.Seconds()/(floodsRounds*floodsFor.Seconds())))
	b.progress("%s: %.1f ms beside, %.1f alone", name, beside, alone)
	return nil
}

// streamOrder is a flood over one gRPC stream.
type streamOrder struct{ Addr, Key, Function string }

// floodStream sends calls on one stream as fast as they are taken, and counts the answers.
func floodStream(o streamOrder, d time.Duration) (r floodResult, err error) {
	conn, err := grpc.NewClient(o.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return r, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	stream, err := pb.NewSandboxClient(conn).InvokeStream(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+o.Key))
	if err != nil {
		return r, err
	}
	call := &pb.InvokeRequest{Target: &pb.InvokeRequest_Function{Function: o.Function}, Input: []byte("0"), Timeout: durationpb.New(time.Second)}
	go func() {
		for tag := uint64(1); stream.Send(&pb.InvokeStreamRequest{Tag: tag, Body: &pb.InvokeStreamRequest_Call{Call: call}}) == nil; tag++ {
		}
	}()
	for {
		got, err := stream.Recv()
		if err != nil {
			break // the time is over
		}
		switch kind := got.GetResult().GetError().GetKind(); cmp.Or(kind, "ok") {
		case "ok":
			r.OK++
		case "limited", "no_capacity":
			r.Refused++
		default:
			if !strings.HasPrefix(kind, "timeout") {
				r.Failed++
			}
		}
	}
	r.OK, r.Refused, r.Failed = r.OK/d.Seconds(), r.Refused/d.Seconds(), r.Failed/d.Seconds()
	return r, nil
}
