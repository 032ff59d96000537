package rollout

import (
	"testing"
	"time"

	"paddock/controller/catalog"
	pb "paddock/proto/paddock/v1"
)

func record() *pb.RuntimeRecord {
	return &pb.RuntimeRecord{Name: "node", Image: "A", Rollout: &pb.Rollout{Id: "r", Image: "B", From: "A", CanaryPercent: 10, State: Canary, Gate: withDefaults(nil)}}
}

func nodeOf(id string, b, a *pb.ImageStatus) *pb.NodeStatus {
	b.Digest, b.Present, a.Digest, a.Present = "B", true, "A", true
	return &pb.NodeStatus{Id: id, State: "serving", Rollout: "r", Images: []*pb.ImageStatus{a, b}}
}

// A good image goes out controller by controller and becomes the current one.
func TestGoesOut(t *testing.T) {
	now, rec := time.Unix(1e9, 0), record()
	good := func() *pb.ImageStatus { return &pb.ImageStatus{Made: 5, Percent: 100, Calls: 500} }
	nodes := []*pb.NodeStatus{nodeOf("n1", good(), &pb.ImageStatus{Calls: 500}), nodeOf("n2", good(), &pb.ImageStatus{Calls: 500})}
	var path []string
	for range 10 {
		next := step(rec, nodes, now)
		if next == nil {
			break
		}
		rec = next
		path = append(path, rec.GetRollout().GetState()+" "+rec.GetRollout().GetNode())
	}
	want := []string{"canary n1", "rolling n1", "rolling n2", "rolling ", "done "}
	if len(path) != len(want) || rec.GetImage() != "B" || rec.GetFormer() != "A" {
		t.Fatalf("%q, image %s, former %s", path, rec.GetImage(), rec.GetFormer())
	}
	for i := range want {
		if path[i] != want[i] {
			t.Errorf("step %d is %q, want %q", i, path[i], want[i])
		}
	}
}

// A controller that has made containers of the image for long, as its own, need not make another to be through.
func TestImageThatIsInUseAlready(t *testing.T) {
	now, rec := time.Unix(1e9, 0), record()
	watch(rec.GetRollout(), "n1", now)
	n1 := nodeOf("n1", &pb.ImageStatus{Percent: 100, Ready: 2}, &pb.ImageStatus{})
	if next := step(rec, []*pb.NodeStatus{n1}, now.Add(DefaultWatch)); next.GetRollout().GetState() != Rolling {
		t.Errorf("it sticks: %v", next)
	}
}

func TestGoesBack(t *testing.T) {
	for name, bad := range map[string]*pb.ImageStatus{
		"does not start": {StartFailures: 3},
		"lost":           {Made: 1, Percent: 10, Calls: 100, Failed: 5},
		"code fails":     {Made: 1, Percent: 10, Calls: 100, Errors: 40},
	} {
		rec := record()
		rec.Rollout.Node = "n1"
		next := step(rec, []*pb.NodeStatus{nodeOf("n1", bad, &pb.ImageStatus{Calls: 500, Errors: 5})}, time.Unix(1e9, 0))
		if next.GetRollout().GetState() != RolledBack || next.GetImage() != "A" || !next.GetDrain() || next.GetRollout().GetReason() == "" {
			t.Errorf("%s: %v", name, next)
		}
	}
	rec := record()
	rec.Rollout.Node = "n1"
	few := &pb.ImageStatus{Made: 1, Percent: 10, Calls: 50, Failed: 50}
	if next := step(rec, []*pb.NodeStatus{nodeOf("n1", few, &pb.ImageStatus{Calls: 500})}, rec.Rollout.GetWatchedSince().AsTime()); next != nil {
		t.Errorf("judged by too few calls: %v", next)
	}
}

func viewOf(rec *pb.RuntimeRecord) *catalog.RuntimeView { return &catalog.RuntimeView{Record: rec} }

// When the time of a step is over, fewer calls are enough to go back, and a controller where it fails is not hidden by those where it works.
func TestGoesBackRatherThanOn(t *testing.T) {
	now := time.Unix(1e9, 0)
	rec := record()
	watch(rec.GetRollout(), "n1", now)
	few := nodeOf("n1", &pb.ImageStatus{Made: 1, Percent: 10, Calls: 12, Failed: 12}, &pb.ImageStatus{Calls: 500})
	if next := step(rec, []*pb.NodeStatus{few}, now.Add(time.Minute)); next != nil {
		t.Errorf("too early: %v", next)
	}
	if next := step(rec, []*pb.NodeStatus{few}, now.Add(DefaultWatch)); next.GetRollout().GetState() != RolledBack {
		t.Errorf("12 of 12 calls failed, and it goes on: %v", next)
	}
	good := nodeOf("n1", &pb.ImageStatus{Made: 9, Percent: 100, Calls: 1e6}, &pb.ImageStatus{Calls: 1e6})
	bad := nodeOf("n2", &pb.ImageStatus{Made: 9, Percent: 100, Calls: 200, Failed: 100}, &pb.ImageStatus{Calls: 500})
	rec.Rollout.State, rec.Rollout.Node = Rolling, "n2"
	if next := step(rec, []*pb.NodeStatus{good, bad}, now); next.GetRollout().GetState() != RolledBack {
		t.Errorf("half of the calls fail at n2, and it goes on: %v", next)
	}
}

// A canary that has gone has shown nothing: another controller is the canary then.
func TestCanaryThatIsGone(t *testing.T) {
	now, rec := time.Unix(1e9, 0), record()
	watch(rec.GetRollout(), "n1", now)
	n2 := nodeOf("n2", &pb.ImageStatus{}, &pb.ImageStatus{Calls: 500})
	nodes := []*pb.NodeStatus{{Id: "n1", State: "silent"}, n2}
	if next := step(rec, nodes, now.Add(time.Second)); next != nil {
		t.Errorf("not waited for: %v", next)
	}
	next := step(rec, nodes, now.Add(DefaultWatch))
	if r := next.GetRollout(); r.GetState() != Canary || r.GetNode() != "n2" {
		t.Errorf("%v", r)
	}
	if next := step(rec, nodes[:1], now.Add(DefaultWatch)); next != nil {
		t.Errorf("nobody has it: %v", next)
	}
}
