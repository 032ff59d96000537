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

	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

func TestLogsAsEvents(t *testing.T) {
	g := newRig(t, nil)
	ended := make(chan struct{})
	g.services.tail = func(r *pb.TailRequest, ss pb.Logs_TailServer) error {
		defer close(ended)
		if r.GetLines() == 9 {
			return errs.New(errs.Invalid, "nine is not liked")
		}
		_ = ss.Send(&pb.LogLine{Text: "hello\ndata: forged", Level: r.GetLevel(), Time: timestamppb.Now()})
		<-ss.Context().Done()
		return ss.Context().Err()
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
	if g.services.saw.Load().Tenant != "acme" {
		t.Errorf("%+v", g.services.saw.Load())
	}
	cancel()
	<-ended
	_ = res.Body.Close()
	ended = make(chan struct{})
	if a := g.do("GET", "/v1/logs?lines=9", ""); a.status != 400 || a.problem.Detail != "nine is not liked" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.do("GET", "/v1/logs?lines=-1", ""); a.status != 400 {
		t.Errorf("%d", a.status)
	}
}

func TestShutdownEndsLogStreams(t *testing.T) {
	g := newRig(t, nil)
	began := make(chan struct{})
	g.services.tail = func(_ *pb.TailRequest, ss pb.Logs_TailServer) error {
		_ = ss.Send(&pb.LogLine{Text: "x"})
		began <- struct{}{}
		<-ss.Context().Done()
		return ss.Context().Err()
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
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
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
