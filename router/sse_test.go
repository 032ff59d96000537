package router

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

func TestLogsAsEvents(t *testing.T) {
	g := newRig(t, nil)
	ended := make(chan struct{})
	lasting := oneLine("hello\ndata: forged")
	g.source.tail = func(ctx context.Context, r *pb.TailRequest, kept func([]*pb.LogLine) error, live func(*pb.LogLine) error) error {
		defer close(ended)
		return lasting(ctx, r, kept, live)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", g.url+"/v1/logs?level=warn", nil)
	req.Header.Set("Authorization", bearerOf("acme-invoke"))
	res, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(res.Body)
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "data: {") || !strings.Contains(line, `forged`) || !strings.Contains(line, "warn") ||
		res.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%q %v", line, err)
	}
	if saw := g.source.saw.Load(); saw != tenant.ID("acme") {
		t.Errorf("lines of %v", saw)
	}
	cancel()
	<-ended
	_ = res.Body.Close()
	if a := g.do("GET", "/v1/logs?level=loud", ""); a.status != 400 || !strings.Contains(a.problem.Detail, "loud") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.do("GET", "/v1/logs?lines=-1", ""); a.status != 400 {
		t.Errorf("%d", a.status)
	}
}

func TestShutdownEndsLogStreams(t *testing.T) {
	g := newRig(t, nil)
	began := make(chan struct{})
	lasting := oneLine("x")
	g.source.tail = func(ctx context.Context, r *pb.TailRequest, kept func([]*pb.LogLine) error, live func(*pb.LogLine) error) error {
		began <- struct{}{}
		return lasting(ctx, r, kept, live)
	}
	req, _ := http.NewRequest("GET", g.url+"/v1/logs", nil)
	req.Header.Set("Authorization", bearerOf("acme-invoke"))
	go func() {
		if res, err := g.client.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	}()
	<-began
	tail, err := pb.NewLogsClient(g.conn).Tail(ctxAs(t.Context(), "acme-invoke"), &pb.TailRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	<-began
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := g.router.Shutdown(ctx); err != nil {
		t.Errorf("%v", err)
	}
	for err == nil {
		_, err = tail.Recv()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
