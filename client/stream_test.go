package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "paddock/proto/paddock/v1"
)

// The calls of a stream are in flight at once: here none is answered before all have come, and then the last one first.
func TestStreamManyCalls(t *testing.T) {
	const calls = 50
	s := &service{stream: func(_ int, ss pb.Sandbox_InvokeStreamServer) error {
		var all []*pb.InvokeStreamRequest
		for len(all) < calls {
			m, err := ss.Recv()
			if err != nil {
				return err
			}
			all = append(all, m)
		}
		for i := range all {
			if err := answer(ss, all[len(all)-1-i]); err != nil {
				return err
			}
		}
		<-ss.Context().Done()
		return nil
	}}
	stream := serve(t, s).Stream()
	defer stream.Close()
	var begun []*Pending
	for i := range calls {
		begun = append(begun, stream.Start(t.Context(), Call{Function: "f", Input: fmt.Append(nil, i)}))
	}
	for i, p := range begun {
		if res, err := p.Wait(); err != nil || string(res.GetOutput()) != fmt.Sprint(i) {
			t.Errorf("call %d: %v %v", i, res, err)
		}
	}
	if n := s.counted(&s.streams); n != 1 {
		t.Errorf("%d streams", n)
	}
}

func TestStreamLogsAsTheyCome(t *testing.T) {
	s := &service{stream: func(_ int, ss pb.Sandbox_InvokeStreamServer) error {
		m, err := ss.Recv()
		if err != nil {
			return err
		}
		for _, text := range []string{"a", "b"} {
			if err := ss.Send(&pb.InvokeStreamResponse{Tag: m.GetTag(),
				Body: &pb.InvokeStreamResponse_Log{Log: &pb.LogLine{Text: text}}}); err != nil {
				return err
			}
		}
		if !m.GetCall().GetWithLogs() {
			return errors.New("no logs were asked for")
		}
		return answer(ss, m)
	}}
	stream := serve(t, s).Stream()
	defer stream.Close()
	got := ""
	if _, err := stream.Do(t.Context(), Call{Function: "f", OnLog: func(l *LogLine) { got += l.GetText() }}); err != nil || got != "ab" {
		t.Errorf("%q %v", got, err)
	}
}

// draining is what a stream is told for a call that comes after goaway.
func draining(ss pb.Sandbox_InvokeStreamServer, m *pb.InvokeStreamRequest) error {
	return ss.Send(&pb.InvokeStreamResponse{Tag: m.GetTag(), Body: &pb.InvokeStreamResponse_Result{Result: &pb.InvokeResponse{
		CallId: "c", Error: &pb.CallError{Kind: "no_capacity", Started: "no", Cause: "draining"}}}})
}

func TestStreamGoAway(t *testing.T) {
	for name, leave := range map[string]func(pb.Sandbox_InvokeStreamServer, *pb.InvokeStreamRequest) error{
		"refused":  draining,
		"unheard":  func(pb.Sandbox_InvokeStreamServer, *pb.InvokeStreamRequest) error { return nil },
		"answered": answer,
	} {
		t.Run(name, func(t *testing.T) {
			s := &service{stream: func(n int, ss pb.Sandbox_InvokeStreamServer) error {
				m, err := ss.Recv()
				if err != nil {
					return err
				}
				if n > 1 {
					err := answer(ss, m)
					<-ss.Context().Done()
					return err
				}
				if err := ss.Send(&pb.InvokeStreamResponse{Body: &pb.InvokeStreamResponse_Goaway{Goaway: &pb.GoAway{}}}); err != nil {
					return err
				}
				return leave(ss, m)
			}}
			stream := serve(t, s).Stream()
			defer stream.Close()
			for range 2 { // the first one meets goaway; the second must not go there
				if res, err := stream.Do(t.Context(), Call{Function: "f", Input: []byte("1")}); err != nil || string(res.GetOutput()) != "1" {
					t.Fatalf("%v %v", res, err)
				}
				if s.counted(&s.streams) > 1 {
					break
				}
			}
			if n := s.counted(&s.streams); n != 2 {
				t.Errorf("%d streams", n)
			}
		})
	}
}

// A stream that breaks says nothing of what was in flight on it: not repeated. The next call finds another stream.
func TestStreamBreaks(t *testing.T) {
	s := &service{stream: func(n int, ss pb.Sandbox_InvokeStreamServer) error {
		m, err := ss.Recv()
		if err != nil {
			return err
		}
		if n == 1 {
			return status.Error(codes.Unavailable, "error reading from server: EOF")
		}
		err = answer(ss, m)
		<-ss.Context().Done()
		return err
	}}
	stream := serve(t, s).Stream()
	defer stream.Close()
	var e *Error
	if _, err := stream.Do(t.Context(), Call{Function: "f"}); !errors.As(err, &e) || e.Kind != Internal || e.Started != StartedMaybe {
		t.Errorf("%+v", err)
	}
	if _, err := stream.Do(t.Context(), Call{Function: "f"}); err != nil || s.counted(&s.streams) != 2 {
		t.Errorf("%v after %d streams", err, s.counted(&s.streams))
	}
}

func TestStreamRefusedAtTheDoor(t *testing.T) {
	s := &service{stream: func(int, pb.Sandbox_InvokeStreamServer) error {
		return failure(codes.Unauthenticated, Unauthenticated, StartedNo, 0)
	}}
	stream := serve(t, s).Stream()
	defer stream.Close()
	var e *Error
	if _, err := stream.Do(t.Context(), Call{Function: "f"}); !errors.As(err, &e) || e.Kind != Unauthenticated || e.Started != StartedNo {
		t.Errorf("%+v", err)
	}
	if n := s.counted(&s.streams); n != 1 {
		t.Errorf("%d streams", n)
	}
}

// A caller that goes away has its call cancelled at the service, and the stream goes on.
func TestStreamCancel(t *testing.T) {
	cancelled := make(chan uint64, 1)
	came := make(chan struct{}, 2)
	s := &service{stream: func(_ int, ss pb.Sandbox_InvokeStreamServer) error {
		for n := 0; ; n++ {
			m, err := ss.Recv()
			if err != nil {
				return err
			}
			switch {
			case m.GetCancel() != nil:
				cancelled <- m.GetTag()
			case n > 0:
				err = answer(ss, m)
			default:
				came <- struct{}{}
			}
			if err != nil {
				return err
			}
		}
	}}
	stream := serve(t, s).Stream()
	defer stream.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-came; cancel() }()
	var e *Error
	if _, err := stream.Do(ctx, Call{Function: "f"}); !errors.As(err, &e) || e.Kind != Cancelled || e.Started != StartedMaybe {
		t.Errorf("%+v", err)
	}
	if tag := <-cancelled; tag != 1 {
		t.Errorf("tag %d was cancelled", tag)
	}
	if _, err := stream.Do(t.Context(), Call{Function: "f"}); err != nil || s.counted(&s.streams) != 1 {
		t.Errorf("%v after %d streams", err, s.counted(&s.streams))
	}
}

// Close answers every waiter and leaves nothing behind.
func TestStreamClose(t *testing.T) {
	var came sync.WaitGroup
	came.Add(3)
	s := &service{stream: func(_ int, ss pb.Sandbox_InvokeStreamServer) error {
		for {
			if _, err := ss.Recv(); err != nil {
				return err
			}
			came.Done()
		}
	}}
	stream := serve(t, s).Stream()
	var begun []*Pending
	for range 3 {
		begun = append(begun, stream.Start(t.Context(), Call{Function: "f"}))
	}
	came.Wait()
	stream.Close()
	stream.Close()
	for _, p := range begun {
		var e *Error
		if _, err := p.Wait(); !errors.As(err, &e) || e.Kind != Cancelled || e.Started != StartedMaybe {
			t.Errorf("%+v", err)
		}
	}
	if _, err := stream.Do(t.Context(), Call{Function: "f"}); KindOf(err) != Cancelled {
		t.Errorf("a call on a closed stream: %v", err)
	}
}
