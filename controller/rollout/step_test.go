package rollout

import (
	"testing"
	"time"

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
