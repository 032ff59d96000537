// Package rollout brings a new runtime image out: to a share of what one controller makes, then controller by controller, and back when
// it fails. The record runtimes/<name> says how far it is; controllers follow it by themselves (controller/images.go), so nothing here
// makes or ends a container. One process at a time decides: the elected janitor, or `paddock up` itself.
package rollout

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "paddock/proto/paddock/v1"
)

// States of a rollout.
const (
	Canary     = "canary"
	Rolling    = "rolling"
	Done       = "done"
	RolledBack = "rolled_back"
)

// States are all of a rollout, Results those that it ends with.
var (
	States  = []string{Canary, Rolling, Done, RolledBack}
	Results = []string{Done, RolledBack}
)

// Defaults of a gate.
const (
	DefaultCanaryPercent    = 10
	DefaultMinCalls         = 100
	DefaultMaxFailedPercent = 2
	DefaultMaxErrorPercent  = 20
	DefaultStartFailures    = 3
	DefaultWatch            = 2 * time.Minute
)

// withDefaults fills in what a gate leaves open.
func withDefaults(g *pb.RolloutGate) *pb.RolloutGate {
	g = proto.Clone(g).(*pb.RolloutGate)
	if g == nil {
		g = &pb.RolloutGate{}
	}
	if g.MinCalls == 0 {
		g.MinCalls = DefaultMinCalls
	}
	if g.MaxFailedPercent == 0 {
		g.MaxFailedPercent = DefaultMaxFailedPercent
	}
	if g.MaxErrorPercent == 0 {
		g.MaxErrorPercent = DefaultMaxErrorPercent
	}
	if g.MaxStartFailures == 0 {
		g.MaxStartFailures = DefaultStartFailures
	}
	if g.Watch == nil {
		g.Watch = durationpb.New(DefaultWatch)
	}
	return g
}

// active says that a rollout is under way.
func active(r *pb.Rollout) bool { return r.GetState() == Canary || r.GetState() == Rolling }

// step returns the record as it should stand next by what the controllers say, or nil if it may stay as it is.
func step(rec *pb.RuntimeRecord, nodes []*pb.NodeStatus, now time.Time) *pb.RuntimeRecord {
	if !active(rec.GetRollout()) {
		return nil
	}
	next := proto.Clone(rec).(*pb.RuntimeRecord)
	r := next.GetRollout()
	if why := failure(r, nodes, now); why != "" {
		rollBack(next, why, now)
		return next
	}
	if r.GetPaused() {
		return nil
	}
	if r.GetNode() == "" { // nobody had the image so far, or the one that was watched is through
		if n := following(r, nodes); n != nil {
			watch(r, n.GetId(), now)
			return next
		}
		if len(r.GetMoved()) == 0 || !allMoved(r, nodes) {
			return nil
		}
		next.Former, next.Image, next.Drain = rec.GetImage(), r.GetImage(), r.GetDrain()
		r.State, r.Ended = Done, timestamppb.New(now)
		return next
	}
	watched := node(r.GetNode(), nodes)
	gone := watched.GetState() != "serving" || !has(r, watched)
	switch {
	case gone && !overdue(r, now), !gone && !good(r, watched, now):
		return nil
	case gone && r.GetState() == Canary: // it has shown nothing
		if r.Node = ""; following(r, nodes) == nil {
			return nil // it may come back
		}
	case r.GetState() == Canary: // the same controller as a whole
		r.State = Rolling
		watch(r, r.GetNode(), now)
		return next
	}
	r.Node = ""
	if n := following(r, nodes); n != nil {
		watch(r, n.GetId(), now)
	}
	return next
}

// watch makes a controller the one that is watched, with all that it makes once the canary is through.
func watch(r *pb.Rollout, id string, now time.Time) {
	r.Node, r.WatchedSince = id, timestamppb.New(now)
	if r.GetState() == Rolling && !slices.Contains(r.GetMoved(), id) {
		r.Moved = append(r.Moved, id)
	}
}

// rollBack takes a rollout back: what has been made of its image is replaced at once.
func rollBack(rec *pb.RuntimeRecord, why string, now time.Time) {
	r := rec.GetRollout()
	r.Ended = timestamppb.New(now)
	r.State, r.Reason, r.Paused, r.Node, r.Moved = RolledBack, why, false, "", nil
	rec.Drain = true
}

// of returns an image at a controller, if its counts are of this rollout.
func of(r *pb.Rollout, n *pb.NodeStatus, digest string) *pb.ImageStatus {
	if n.GetRollout() != r.GetId() {
		return nil
	}
	for _, s := range n.GetImages() {
		if s.GetDigest() == digest {
			return s
		}
	}
	return nil
}

// has says whether a controller can make containers of the rollout's image.
func has(r *pb.Rollout, n *pb.NodeStatus) bool { return of(r, n, r.GetImage()).GetPresent() }

// following returns the next controller in order that has the image and has not moved; nil if there is none.
func following(r *pb.Rollout, nodes []*pb.NodeStatus) *pb.NodeStatus {
	for _, n := range nodes {
		if n.GetState() == "serving" && has(r, n) && !slices.Contains(r.GetMoved(), n.GetId()) {
			return n
		}
	}
	return nil
}

// allMoved says whether no controller that has moved makes or keeps warm containers of another image, and whether, with drain, none is
// left at all. One that does not answer, or has lost the image, is not waited for: it follows the record once it can.
func allMoved(r *pb.Rollout, nodes []*pb.NodeStatus) bool {
	for _, n := range nodes {
		if !has(r, n) || !slices.Contains(r.GetMoved(), n.GetId()) {
			continue
		}
		for _, s := range n.GetImages() {
			if s.GetDigest() != r.GetImage() && (s.GetReady() > 0 || r.GetDrain() && s.GetAssigned() > 0) {
				return false
			}
		}
	}
	return true
}

// node returns a controller by its id, nil if nobody knows it.
func node(id string, nodes []*pb.NodeStatus) *pb.NodeStatus {
	i := slices.IndexFunc(nodes, func(n *pb.NodeStatus) bool { return n.GetId() == id })
	if i < 0 {
		return nil
	}
	return nodes[i]
}

// overdue says whether the present step was watched for as long as it is to be.
func overdue(r *pb.Rollout, now time.Time) bool {
	return now.Sub(r.GetWatchedSince().AsTime()) >= r.GetGate().GetWatch().AsDuration()
}

// good says whether the watched controller has shown for long enough, or with enough calls, that the image works there.
func good(r *pb.Rollout, watched *pb.NodeStatus, now time.Time) bool {
	s := of(r, watched, r.GetImage())
	if s.GetPercent() == 0 || s.GetMade() == 0 && s.GetReady()+s.GetAssigned() == 0 { // it has not begun
		return false
	}
	if r.GetState() == Rolling && !allMoved(r, []*pb.NodeStatus{watched}) {
		return false
	}
	return overdue(r, now) || s.GetCalls() >= int64(r.GetGate().GetMinCalls())
}

// failure says why the image has to go back, "" if it has not: what it did at all controllers, and at the watched one alone, whose
// failures those where it works must not hide.
func failure(r *pb.Rollout, nodes []*pb.NodeStatus, now time.Time) string {
	for _, n := range nodes {
		s := of(r, n, r.GetImage())
		if s.GetStartFailures() >= int64(r.GetGate().GetMaxStartFailures()) && s.GetStartFailures() > s.GetMade() {
			return fmt.Sprintf("controller %s could not start %d containers of it, and started %d", n.GetId(), s.GetStartFailures(), s.GetMade())
		}
	}
	least := int64(r.GetGate().GetMinCalls())
	if overdue(r, now) && r.GetNode() != "" { // what there is must do, before it goes on
		least = max(1, least/10)
	}
	why := worse(r, nodes, least)
	if watched := node(r.GetNode(), nodes); why == "" && watched != nil {
		if why = worse(r, []*pb.NodeStatus{watched}, least); why != "" {
			why = "at controller " + watched.GetId() + " " + why
		}
	}
	return why
}

// worse compares the image with those before it at the same controllers, once it has had so many calls.
func worse(r *pb.Rollout, nodes []*pb.NodeStatus, least int64) string {
	g := r.GetGate()
	var fresh, former pb.ImageStatus
	for _, n := range nodes {
		s := of(r, n, r.GetImage())
		add(&fresh, s)
		for _, o := range n.GetImages() {
			if s != nil && o.GetDigest() != r.GetImage() {
				add(&former, o)
			}
		}
	}
	if fresh.GetCalls() < least {
		return ""
	}
	if more := percent(fresh.GetFailed(), fresh.GetCalls()) - percent(former.GetFailed(), former.GetCalls()); more > g.GetMaxFailedPercent() {
		return fmt.Sprintf("%d of %d calls failed by the sandbox or the platform, %d of %d with the image before", fresh.GetFailed(), fresh.GetCalls(),
			former.GetFailed(), former.GetCalls())
	}
	if former.GetCalls() < least {
		return "" // whether code has always failed like this is not known
	}
	if more := percent(fresh.GetErrors(), fresh.GetCalls()) - percent(former.GetErrors(), former.GetCalls()); more > g.GetMaxErrorPercent() {
		return fmt.Sprintf("%d of %d calls failed by their code, %d of %d with the image before", fresh.GetErrors(), fresh.GetCalls(),
			former.GetErrors(), former.GetCalls())
	}
	return ""
}

func add(sum, s *pb.ImageStatus) {
	sum.Calls, sum.Failed, sum.Errors = sum.Calls+s.GetCalls(), sum.Failed+s.GetFailed(), sum.Errors+s.GetErrors()
}

func percent(n, all int64) float64 {
	if all == 0 {
		return 0
	}
	return 100 * float64(n) / float64(all)
}
