package client

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "paddock/proto/paddock/v1"
)

func (s *service) ListFunctions(ctx context.Context, r *pb.ListFunctionsRequest) (*pb.ListFunctionsResponse, error) {
	n := s.count(ctx, &s.calls)
	if n == 2 {
		return nil, failure(codes.Unavailable, NoCapacity, StartedNo, 0) // asked again for the same page
	}
	switch r.GetPageToken() {
	case "":
		return &pb.ListFunctionsResponse{Functions: []*pb.Function{{Name: "a"}, {Name: "b"}}, NextPageToken: "2"}, nil
	case "2":
		return &pb.ListFunctionsResponse{Functions: []*pb.Function{{Name: "c"}}}, nil
	}
	return nil, failure(codes.InvalidArgument, Invalid, StartedNo, 0)
}

func TestPages(t *testing.T) {
	s := &service{}
	c := serve(t, s)
	got := ""
	for f, err := range c.Functions().All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got += f.GetName()
	}
	if n := s.counted(&s.calls); got != "abc" || n != 3 {
		t.Errorf("%q after %d requests", got, n)
	}
	for range c.Functions().All(t.Context()) {
		break // asks for no second page
	}
	if n := s.counted(&s.calls); n != 4 {
		t.Errorf("%d requests", n)
	}
	for f, err := range c.Tenants().All(t.Context()) { // this service has none
		if f != nil || KindOf(err) != NotFound {
			t.Errorf("%v %v", f, err)
		}
	}
}

func (s *service) ActivateVersion(_ context.Context, r *pb.ActivateVersionRequest) (*pb.Function, error) {
	if r.GetExpectedRevision() != 5 {
		return nil, failure(codes.Aborted, Conflict, StartedNo, 0)
	}
	return &pb.Function{Name: r.GetName(), Version: r.GetVersion()}, nil
}

func TestGuardedWrite(t *testing.T) {
	c := serve(t, &service{})
	if f, err := c.Functions().Activate(t.Context(), "f", 2, 0, 5); err != nil || f.GetVersion() != 2 {
		t.Errorf("%v %v", f, err)
	}
	if _, err := c.Functions().Activate(t.Context(), "f", 2, 0, 4); KindOf(err) != Conflict {
		t.Errorf("%v", err)
	}
}

func (s *service) CreateKey(_ context.Context, r *pb.CreateKeyRequest) (*pb.CreateKeyResponse, error) {
	return &pb.CreateKeyResponse{Key: &pb.Key{Id: "k1", Role: r.GetRole(), Tenant: r.GetTenant()}, Secret: "k1.secret"}, nil
}

func TestNewKey(t *testing.T) {
	key, secret, err := serve(t, &service{}).Keys().Create(t.Context(), NewKey{Tenant: "acme", Role: "deploy"})
	if err != nil || secret != "k1.secret" || key.GetRole() != "deploy" {
		t.Errorf("%v %q %v", key, secret, err)
	}
}

func (s *service) Tail(r *pb.TailRequest, ss grpc.ServerStreamingServer[pb.LogLine]) error {
	for i := range 3 {
		if err := ss.Send(&pb.LogLine{Text: fmt.Sprint(i)}); err != nil {
			return err
		}
	}
	if r.GetFollow() {
		<-ss.Context().Done()
		return ss.Context().Err()
	}
	return nil
}

func TestTail(t *testing.T) {
	c := serve(t, &service{})
	got := ""
	for l, err := range c.Logs().Tail(t.Context(), &Tail{}) {
		if err != nil {
			t.Fatal(err)
		}
		got += l.GetText()
	}
	if got != "012" {
		t.Errorf("%q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for l, err := range c.Logs().Tail(ctx, &Tail{Follow: true}) {
		if last = err; l.GetText() == "2" {
			cancel()
		}
	}
	if !errors.Is(last, context.Canceled) || KindOf(last) != Cancelled {
		t.Errorf("%v", last)
	}
}
