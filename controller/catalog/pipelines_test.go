package catalog

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/controller/store"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	pb "paddock/proto/paddock/v1"
)

func step(function string, order int32) *pb.PipelineStep {
	return &pb.PipelineStep{Function: function, Order: order}
}

// TestPipelineLife: put, shown, listed, replaced, named by its functions, deleted.
func TestPipelineLife(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	w.deploy("acme", "f", "f1")
	w.deploy("acme", "f", "f2")
	w.deploy("acme", "g", "g1")
	s, ctx := NewServer(w.service), as(t, identity.RoleDeploy, "acme")
	p, err := s.PutPipeline(ctx, &pb.PutPipelineRequest{Name: "login", Pipeline: &pb.Pipeline{
		Timeout: durationpb.New(3 * time.Second),
		Steps: []*pb.PipelineStep{
			{Function: "g", Order: 30, OnFailure: "skip", Timeout: durationpb.New(time.Second)},
			{Function: "f@1", Order: 10}, {Function: "f", Order: 20, Disabled: true},
		},
	}})
	must(t, err)
	show := func(p *pb.Pipeline) string {
		var b strings.Builder
		fmt.Fprint(&b, p.GetName(), " ", p.GetKind(), " ", p.GetTimeout().AsDuration(), " ", p.GetAuthor())
		for _, s := range p.GetSteps() {
			fmt.Fprint(&b, " | ", s.GetFunction(), " ", s.GetOrder(), " ", s.GetDisabled(), " ", s.GetTimeout().AsDuration(), " ", s.GetOnFailure())
		}
		return b.String()
	}
	want := "login rule 3s k-deploy | f@1 10 false 0s fail | f 20 true 0s fail | g 30 false 1s skip"
	if got := show(p); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	got, err := s.GetPipeline(ctx, &pb.GetPipelineRequest{Name: "login"})
	must(t, err)
	if show(got) != want || got.GetRevision() != p.GetRevision() || got.GetUpdated().AsTime() != p.GetUpdated().AsTime() {
		t.Errorf("%+v, put was %+v", got, p)
	}
	again, err := s.PutPipeline(ctx, &pb.PutPipelineRequest{Pipeline: p, ExpectedRevision: p.GetRevision()})
	if err != nil || again.GetRevision() != p.GetRevision() {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	versions, err := s.ListVersions(ctx, &pb.ListVersionsRequest{Name: "f"})
	must(t, err)
	if v := versions.GetVersions(); len(v) != 2 || len(v[0].GetUsedBy()) != 0 || strings.Join(v[1].GetUsedBy(), ",") != "login" ||
		!v[0].GetActive() || v[0].GetPercent() != 100 || v[1].GetPercent() != 0 {
		t.Errorf("%+v", v)
	}
	_, err = s.DeleteFunction(ctx, &pb.DeleteFunctionRequest{Name: "g"})
	wantKind(t, err, errs.Conflict, "g", "pipeline login")
	_, err = s.DeleteVersion(ctx, &pb.DeleteVersionRequest{Name: "f", Version: 1})
	wantKind(t, err, errs.Conflict, "version 1", "login")
	_, err = s.PutPipeline(ctx, &pb.PutPipelineRequest{Name: "signup", Pipeline: &pb.Pipeline{Kind: "action", Steps: []*pb.PipelineStep{step("g", 0)}}})
	must(t, err)
	_, err = s.DeleteFunction(ctx, &pb.DeleteFunctionRequest{Name: "g"})
	wantKind(t, err, errs.Conflict, "pipelines login, signup")
	list, err := s.ListPipelines(ctx, &pb.ListPipelinesRequest{PageSize: 1})
	must(t, err)
	rest, err := s.ListPipelines(ctx, &pb.ListPipelinesRequest{PageSize: 1, PageToken: list.GetNextPageToken()})
	must(t, err)
	if len(list.GetPipelines()) != 1 || list.GetPipelines()[0].GetName() != "login" || rest.GetPipelines()[0].GetName() != "signup" ||
		rest.GetNextPageToken() != "" {
		t.Errorf("%+v, %+v", list, rest)
	}
	for _, name := range []string{"login", "signup"} {
		d, err := s.DeletePipeline(ctx, &pb.DeletePipelineRequest{Name: name})
		must(t, err)
		if d.GetRevision() == 0 {
			t.Error("no revision")
		}
	}
	_, err = s.GetPipeline(ctx, &pb.GetPipelineRequest{Name: "login"})
	wantKind(t, err, errs.NotFound, "login")
	_, err = s.DeletePipeline(ctx, &pb.DeletePipelineRequest{Name: "login"})
	wantKind(t, err, errs.NotFound, "login")
	_, err = s.DeleteFunction(ctx, &pb.DeleteFunctionRequest{Name: "g"})
	must(t, err)
	u, _, err := w.service.usageFor(t.Context(), "acme")
	if err != nil || u.GetPipelines() != 0 || u.GetFunctions() != 1 {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestBadPipelines: each refusal names the pipeline, the step and what is wrong.
func TestBadPipelines(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", &pb.Policy{MaxPipelines: ptr[int32](2), MaxTimeout: durationpb.New(30 * time.Second)})
	w.deploy("acme", "f", "f1")
	_, err := w.service.DeployFunction(t.Context(), "acme", Deployment{Name: "act", Source: []byte("a"), Kind: call.KindAction})
	must(t, err)
	many := make([]*pb.PipelineStep, MaxSteps+1)
	for i := range many {
		many[i] = step("f", int32(i))
	}
	for _, c := range []struct {
		p    *pb.Pipeline
		kind errs.Kind
		says []string
	}{
		{nil, errs.Invalid, []string{"no pipeline"}},
		{&pb.Pipeline{Name: "other"}, errs.Invalid, []string{"p", "other"}},
		{&pb.Pipeline{Kind: "webtask"}, errs.Invalid, []string{"p", "webtask", "rule or action"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{step("none", 0)}}, errs.NotFound, []string{"p", "step 1", "none"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{{Function: "none", Disabled: true}}}, errs.NotFound, []string{"none"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{step("f", 1), step("f@7", 2)}}, errs.NotFound, []string{"step 2", "f", "version 7"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{step("f@0", 1)}}, errs.Invalid, []string{"step 1", "f@0"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{step("f@+1", 1)}}, errs.Invalid, []string{"step 1", "f@+1"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{step("", 1)}}, errs.Invalid, []string{"step 1", "name"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{step("../f", 1)}}, errs.Invalid, []string{"step 1", "../f"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{step("f", 2), step("f", 1), step("f", 2)}}, errs.Invalid, []string{"steps 1", "and 3", "order 2"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{step("f", 0), step("f", 1), step("f", 0)}}, errs.Invalid, []string{"order 0"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{step("f", -1)}}, errs.Invalid, []string{"-1"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{{Function: "f", OnFailure: "retry"}}}, errs.Invalid, []string{"step 1", "retry", "last_good"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{{Function: "f", Timeout: durationpb.New(-1)}}}, errs.Invalid, []string{"step 1", "timeout"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{{Function: "f", Timeout: durationpb.New(time.Minute)}}}, errs.Invalid, []string{"step 1", "1m0s", "30s"}},
		{&pb.Pipeline{Timeout: durationpb.New(time.Minute)}, errs.Invalid, []string{"p", "1m0s", "30s"}},
		{&pb.Pipeline{Timeout: durationpb.New(0)}, errs.Invalid, []string{"p", "timeout"}},
		{&pb.Pipeline{Timeout: &durationpb.Duration{Seconds: 1, Nanos: -5}}, errs.Invalid, []string{"p", "timeout"}},
		{&pb.Pipeline{Steps: many}, errs.Invalid, []string{"p", "101", "100"}},
		{&pb.Pipeline{Steps: []*pb.PipelineStep{step("act", 0)}}, errs.Invalid, []string{"step 1", "act", "action", "rule"}},
	} {
		_, err := NewServer(w.service).PutPipeline(as(t, identity.RoleDeploy, "acme"), &pb.PutPipelineRequest{Name: "p", Pipeline: c.p})
		wantKind(t, err, c.kind, c.says...)
	}
	ctx := t.Context()
	_, err = w.service.PutPipeline(ctx, "acme", NewPipeline{Name: "-"})
	wantKind(t, err, errs.Invalid, "pipeline name")
	_, err = w.service.PutPipeline(ctx, "nobody", NewPipeline{Name: "p"})
	wantKind(t, err, errs.NotFound, "nobody")
	_, err = w.service.DeletePipeline(ctx, "acme", "a/b")
	wantKind(t, err, errs.Invalid, "a/b")
	_, err = w.service.PutPipeline(ctx, "acme", NewPipeline{Name: "p", ExpectedRevision: 9})
	wantKind(t, err, errs.Conflict, "p", "9")
	if w.view.Stats().Pipelines != 0 {
		t.Error("a refused pipeline is there")
	}
	for _, name := range []string{"a", "b"} {
		_, err = w.service.PutPipeline(ctx, "acme", NewPipeline{Name: name, Steps: many[:MaxSteps]})
		must(t, err)
	}
	_, err = w.service.PutPipeline(ctx, "acme", NewPipeline{Name: "c"})
	wantKind(t, err, errs.Limited, "acme", "2 pipelines", "limit is 2")
	_, err = w.service.PutPipeline(ctx, "acme", NewPipeline{Name: "b"}) // no place of its own
	must(t, err)
	if r, err := w.view.ResolvePipeline("acme", "b", 0); err != nil || len(r.Steps) != 0 {
		t.Errorf("without steps: %+v, %v", r, err)
	}
}

// TestPublish: code and pipeline in one step, or nothing of it.
func TestPublish(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", &pb.Policy{MaxFunctions: ptr[int32](40)})
	w.deploy("acme", "old", "o1")
	s, ctx := w.service, t.Context()
	code := func(n int, text string) []Deployment {
		all := make([]Deployment, n)
		for i := range all {
			all[i] = Deployment{Name: fmt.Sprint("f", i), Source: fmt.Append(nil, text, i), Note: text}
		}
		return all
	}
	steps := []*pb.PipelineStep{step("f0", 0), step("old", 0), step("f1@2", 0)}
	_, err := s.PublishPipeline(ctx, "acme", NewPipeline{Name: "p", Steps: steps}, code(2, "a"))
	wantKind(t, err, errs.NotFound, "step 3", "f1", "version 2")
	steps[2] = step("f1", 0)
	first, err := s.PublishPipeline(ctx, "acme", NewPipeline{Name: "p", Steps: steps, Author: "me"}, code(2, "a"))
	must(t, err)
	for _, d := range first.Functions {
		if d.Revision != first.Pipeline.Revision || !d.New || d.Version.Number != 1 || d.Version.Note != "a" {
			t.Errorf("%+v", d)
		}
	}
	again, err := s.PublishPipeline(ctx, "acme", NewPipeline{Name: "p", Steps: steps}, code(2, "a"))
	must(t, err)
	if again.Pipeline.Revision != first.Pipeline.Revision || again.Functions[0].New || w.view.Revision() != first.Pipeline.Revision {
		t.Errorf("the same again: %+v", again)
	}
	second, err := s.PublishPipeline(ctx, "acme", NewPipeline{Name: "p", Steps: steps}, code(2, "b"))
	must(t, err)
	if second.Pipeline.Revision != first.Pipeline.Revision || second.Functions[1].Revision <= first.Pipeline.Revision {
		t.Errorf("new code only: %+v", second)
	}
	r, err := w.view.ResolvePipeline("acme", "p", 0)
	if err != nil || r.Revision != second.Functions[0].Revision || r.Steps[2].Code.Number != 2 || r.Steps[1].Code.Number != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	rev := w.view.Revision()
	for _, c := range []struct {
		code []Deployment
		n    NewPipeline
		kind errs.Kind
		says []string
	}{
		{append(code(2, "c"), code(1, "d")...), NewPipeline{Name: "p"}, errs.Invalid, []string{"f0", "twice"}},
		{[]Deployment{{Name: "g", Source: []byte("x"), KeepActive: true}}, NewPipeline{Name: "p"}, errs.Invalid, []string{"g", "keep_active"}},
		{[]Deployment{{Name: "g", Source: nil}}, NewPipeline{Name: "p"}, errs.Invalid, []string{"g", "empty"}},
		{code(2, "c"), NewPipeline{Name: "p", Steps: []*pb.PipelineStep{step("none", 0)}}, errs.NotFound, []string{"none"}},
		{code(2, "c"), NewPipeline{Name: "p", ExpectedRevision: 1}, errs.Conflict, []string{"p"}},
		{[]Deployment{{Name: "f0", Source: []byte("x"), ExpectedRevision: 1}}, NewPipeline{Name: "p"}, errs.Conflict, []string{"f0"}},
		{code(40, "c"), NewPipeline{Name: "p"}, errs.Limited, []string{"40"}},
		{code(63, "c"), NewPipeline{Name: "p"}, errs.Invalid, []string{"63 functions", "128", "keep_active"}},
	} {
		_, err := s.PublishPipeline(ctx, "acme", c.n, c.code)
		wantKind(t, err, c.kind, c.says...)
	}
	if w.view.Revision() != rev {
		t.Error("a refused publication wrote something")
	}
}

// TestPublishWithinOneTransaction: the most that is said to go does go, and what trimming adds is counted.
func TestPublishWithinOneTransaction(t *testing.T) {
	w := newWorld(t, mem(t))
	w.tenant("acme", nil)
	const most = (store.MaxTxnOps - 3) / 2
	code := make([]Deployment, most)
	var steps []*pb.PipelineStep
	for i := range code {
		code[i] = Deployment{Name: fmt.Sprint("f", i), Source: fmt.Append(nil, i)}
		steps = append(steps, step(code[i].Name, 0))
	}
	_, err := w.service.PublishPipeline(t.Context(), "acme", NewPipeline{Name: "p", Steps: steps}, code)
	must(t, err)
	for i := range 3 {
		for n := range MaxVersions - 1 {
			w.deploy("acme", code[i].Name, fmt.Sprint("more ", n))
		}
	}
	for i := range code {
		code[i].Source = fmt.Append(nil, "next ", i)
	}
	_, err = w.service.PublishPipeline(t.Context(), "acme", NewPipeline{Name: "p", Steps: steps, Kind: "action"}, code)
	wantKind(t, err, errs.Invalid, fmt.Sprint(store.MaxTxnOps), "keep_active")
	code = code[3:]
	_, err = w.service.PublishPipeline(t.Context(), "acme", NewPipeline{Name: "p", Steps: steps, Kind: "action"}, code)
	must(t, err)
}

// TestWhatIsNamedStays: while pipelines name functions and versions, and others delete them, in two processes, no pipeline ever
// names what is not there.
func TestWhatIsNamedStays(t *testing.T) {
	shared, _ := etcd(t)
	w := newWorld(t, shared)
	other := openWorld(t, shared, w.dir)
	w.tenant("acme", nil)
	ctx := t.Context()
	var all sync.WaitGroup
	for i := range 2 {
		name := fmt.Sprint("p", i)
		all.Go(func() {
			for n := range 40 {
				function := fmt.Sprint("f", n%2)
				_, _ = w.service.DeployFunction(ctx, "acme", Deployment{Name: function, Source: fmt.Append(nil, n%4)})
				_, err := w.service.PutPipeline(ctx, "acme", NewPipeline{Name: name, Steps: []*pb.PipelineStep{step(function+"@1", 0), step(function, 0)}})
				if err != nil && !errs.Is(err, errs.NotFound) {
					t.Error(err)
				}
				if n%5 == 4 {
					_, _ = w.service.DeletePipeline(ctx, "acme", name)
				}
			}
		})
		all.Go(func() {
			for n := range 40 {
				function := fmt.Sprint("f", n%2)
				_, err := other.service.DeleteVersion(ctx, "acme", function, 1)
				if err != nil && !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Conflict) {
					t.Error(err)
				}
				_, err = other.service.DeleteFunction(ctx, "acme", function)
				if err != nil && !errs.Is(err, errs.NotFound) && !errs.Is(err, errs.Conflict) {
					t.Error(err)
				}
			}
		})
	}
	var watch sync.WaitGroup
	stop := make(chan struct{})
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, p := range w.view.Pipelines("acme", "", 10) {
				if _, err := w.view.ResolvePipeline("acme", p.Name, 0); err != nil && !strings.Contains(err.Error(), "no pipeline") {
					t.Error(err)
					return
				}
			}
		}
	})
	all.Wait()
	close(stop)
	watch.Wait()
}
