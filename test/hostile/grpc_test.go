package hostile

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "paddock/proto/paddock/v1"
)

// overGRPC attacks the other front door with the attacker's key. The kind of the answer is gRPC's code.
func overGRPC(how string) func(*attempt) (answer, error) {
	return func(at *attempt) (answer, error) {
		conn, err := grpc.NewClient(at.service.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(1<<30)))
		if err != nil {
			return answer{}, err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+at.key)
		source, err := at.source()
		if err != nil {
			return answer{}, err
		}
		client := pb.NewSandboxClient(conn)
		run := &pb.InvokeRequest{Target: &pb.InvokeRequest_Source{Source: &pb.Source{Code: []byte(source)}}}
		var kind string
		switch how {
		case "large":
			run.Input = []byte(`"` + strings.Repeat("x", 64<<20) + `"`)
			_, err = client.Invoke(ctx, run)
			kind = status.Code(err).String()
		case "metadata":
			_, err = client.Invoke(metadata.AppendToOutgoingContext(ctx, "x-large", strings.Repeat("x", 1<<20)), run)
			kind = status.Code(err).String()
		case "open":
			kind, err = leftOpen(ctx, client, run, at.asked())
		case "streams":
			kind, err = manyStreams(ctx, client)
		}
		detail := ""
		if err != nil {
			detail = err.Error()
		}
		return answer{kind: kind, detail: detail}, nil
	}
}

// leftOpen sends calls on a stream without an end, reads their answers and never closes its side. The calls have their deadline
// all the same.
func leftOpen(ctx context.Context, client pb.SandboxClient, run *pb.InvokeRequest, limit time.Duration) (string, error) {
	began := time.Now()
	run.Timeout = durationpb.New(limit)
	stream, err := client.InvokeStream(ctx)
	if err != nil {
		return status.Code(err).String(), err
	}
	go func() {
		for tag := uint64(1); ctx.Err() == nil && tag < 100000; tag++ {
			if stream.Send(&pb.InvokeStreamRequest{Tag: tag, Body: &pb.InvokeStreamRequest_Call{Call: run}}) != nil {
				return
			}
		}
	}()
	var last string
	for n := 0; n < 200 && time.Since(began) < 4*limit+5*time.Second; n++ {
		got, err := stream.Recv()
		if err != nil {
			return status.Code(err).String(), err
		}
		if last = got.GetResult().GetError().GetKind(); last != "timeout" && last != "limited" && last != "no_capacity" && last != "" && !strings.HasPrefix(last, "sandbox_lost") {
			return last, fmt.Errorf("a call ended as %s", last)
		}
	}
	if took := time.Since(began); took > 4*limit+20*time.Second {
		return "late", fmt.Errorf("the answers took %v", took)
	}
	return "timeout", nil
}

// manyStreams opens streams on one connection, says nothing on them and never closes them. Those that are open at a time have
// to be bounded, whether more are kept waiting or refused: counted are those that our own patience ended, all of which were
// open then. What the server has refused is seen here some time after it was over.
func manyStreams(ctx context.Context, client pb.SandboxClient) (string, error) {
	const tries, most = 2000, 1024
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var held atomic.Int64
	var all sync.WaitGroup
	for range tries {
		all.Go(func() {
			stream, err := client.InvokeStream(ctx) // waits where the connection has no room
			if err != nil {
				return
			}
			if _, err := stream.Recv(); status.Code(err) == codes.DeadlineExceeded {
				held.Add(1)
			}
		})
	}
	all.Wait()
	if n := held.Load(); n == 0 || n > most {
		return "unbounded", fmt.Errorf("%d streams were open on one connection", n)
	}
	return "bounded", nil
}
