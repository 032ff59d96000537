package rollout

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	pb "paddock/proto/paddock/v1"
)

// TestMain makes more histories than rapid would by itself: each takes 0.2 ms.
func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "5000")
	flag.Parse()
	os.Exit(m.Run())
}

// machine is a controller as far as a rollout knows it: it follows the record that it has seen, and has some warm containers.
type machine struct {
	id      string
	alive   bool
	seen    *pb.RuntimeRecord
	has     map[string]bool
	rollout string // of the counts
	counts  map[string]*pb.ImageStatus
	warm    map[string]int
}

// What becomes of containers of an image.
const (
	works = iota
	doesNotStart
	failsCalls
)

const warmPerMachine = 4

type world struct {
	rt       *rapid.T
	now      time.Time
	rec      *pb.RuntimeRecord
	made     int // rollouts
	machines []*machine
	kinds    map[string]int
	stale    *pb.RuntimeRecord // what a second leader has seen
}

func (w *world) newMachine(id string) *machine {
	m := &machine{id: id, alive: true, seen: w.rec, has: map[string]bool{"A": true, "B": true, "C": true}}
	m.restart()
	return m
}

func (m *machine) restart() {
	m.counts, m.warm, m.rollout = map[string]*pb.ImageStatus{}, map[string]int{}, ""
}

func (m *machine) count(digest string) *pb.ImageStatus {
	if m.counts[digest] == nil {
		m.counts[digest] = &pb.ImageStatus{}
	}
	return m.counts[digest]
}

func (m *machine) plan() Plan {
	return PlanOf(m.seen, m.id, "A", func(d string) bool { return m.has[d] })
}

// live is a second of a controller's life.
func (m *machine) live(kinds map[string]int) {
	if id := m.seen.GetRollout().GetId(); id != m.rollout {
		m.rollout, m.counts = id, map[string]*pb.ImageStatus{}
	}
	p := m.plan()
	image, share := p.Image, 0
	if p.Percent >= 100 {
		image = p.Next
	} else if p.Percent > 0 {
		share = 1
	}
	m.fill(p.Next, share, kinds)
	if m.fill(image, warmPerMachine-m.warm[p.Next]*share, kinds); p.Percent >= 100 && m.warm[image] == 0 {
		m.fill(p.Image, warmPerMachine, kinds)
	}
	for digest, n := range m.warm {
		if digest != image && (digest != p.Next || share == 0) && (digest != p.Image || m.warm[image] > 0) {
			delete(m.warm, digest)
			continue
		}
		c := m.count(digest)
		c.Calls += int64(10 * n)
		if kinds[digest] == failsCalls {
			c.Failed += int64(10 * n)
		}
	}
}

// fill has the controller make containers of an image, up to so many.
func (m *machine) fill(digest string, n int, kinds map[string]int) {
	if digest == "" || m.warm[digest] >= n {
		return
	}
	if kinds[digest] == doesNotStart {
		m.count(digest).StartFailures++
		return
	}
	m.count(digest).Made += int64(n - m.warm[digest])
	m.warm[digest] = n
}

func (m *machine) status() *pb.NodeStatus {
	if !m.alive {
		return &pb.NodeStatus{Id: m.id, State: "silent"}
	}
	n, p := &pb.NodeStatus{Id: m.id, State: "serving", Rollout: m.rollout}, m.plan()
	for _, digest := range []string{"A", "B", "C"} {
		s := proto.Clone(m.count(digest)).(*pb.ImageStatus)
		s.Digest, s.Present, s.Ready = digest, m.has[digest], int32(m.warm[digest])
		switch digest {
		case p.Next:
			s.Percent = int32(p.Percent)
		case p.Image:
			s.Percent = 100 - int32(p.Percent)
		}
		n.Images = append(n.Images, s)
	}
	return n
}

func (w *world) nodes() (all []*pb.NodeStatus) {
	for _, m := range w.machines {
		all = append(all, m.status())
	}
	return all
}

// second lets a second pass for those that live.
func (w *world) second() {
	w.now = w.now.Add(time.Second)
	for _, m := range w.machines {
		if m.alive {
			m.live(w.kinds)
		}
	}
}

// lead is a look of a leader that has seen a record: it is written if nobody has changed it since.
func (w *world) lead(seen *pb.RuntimeRecord) {
	if next := step(seen, w.nodes(), w.now); next != nil && seen == w.rec {
		w.write(next)
	}
}

// write replaces the record, in a way that is allowed.
func (w *world) write(next *pb.RuntimeRecord) {
	was, is := w.rec.GetRollout(), next.GetRollout()
	order := map[string]int{"": 0, Canary: 1, Rolling: 2, Done: 3, RolledBack: 3}
	switch {
	case was.GetId() != is.GetId() && active(was):
		w.rt.Errorf("rollout %s began while %s was under way", is.GetId(), was.GetId())
	case was.GetId() == is.GetId() && order[is.GetState()] < order[was.GetState()]:
		w.rt.Errorf("from %s to %s", was.GetState(), is.GetState())
	case active(is) && next.GetImage() != is.GetFrom():
		w.rt.Errorf("the image is %s in the middle of a rollout from %s", next.GetImage(), is.GetFrom())
	case is.GetState() == RolledBack && was.GetState() != RolledBack && next.GetImage() != w.rec.GetImage():
		w.rt.Errorf("rolled back from %s to %s", w.rec.GetImage(), next.GetImage())
	}
	w.rec = next
}

// change is what an operator asks for.
func (w *world) change(decide func(*pb.RuntimeRecord) error) {
	next := proto.Clone(w.rec).(*pb.RuntimeRecord)
	if decide(next) == nil {
		w.write(next)
	}
}

// start begins a rollout of any image.
func (w *world) start(rt *rapid.T) {
	image := rapid.SampledFrom([]string{"A", "B", "C"}).Draw(rt, "image")
	gate := withDefaults(&pb.RolloutGate{Watch: durationpb.New(time.Duration(rapid.IntRange(1, 60).Draw(rt, "watch")) * time.Second)})
	w.change(func(rec *pb.RuntimeRecord) error {
		w.made++
		return begin(rec, &pb.Rollout{Id: fmt.Sprint(w.made), Image: image, CanaryPercent: 10, Gate: gate}, w.nodes(), w.now)
	})
}

// Whatever happens to controllers, leaders and operators, there is one rollout at a time, it goes forward or back, and once all is well
// it ends, with all containers of one image: not one that fails.
func TestEndsWithOneImage(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{rt: rt, now: time.Unix(1e9, 0), rec: &pb.RuntimeRecord{Name: "node"}}
		w.kinds = map[string]int{"A": works, "B": rapid.IntRange(works, failsCalls).Draw(rt, "B"), "C": rapid.IntRange(works, failsCalls).Draw(rt, "C")}
		w.machines = []*machine{w.newMachine("n1"), w.newMachine("n2"), w.newMachine("n3")}
		w.stale = w.rec
		some := func(rt *rapid.T) *machine { return rapid.SampledFrom(w.machines).Draw(rt, "machine") }
		rt.Repeat(map[string]func(*rapid.T){
			"start": w.start,
			"back": func(*rapid.T) {
				w.change(func(rec *pb.RuntimeRecord) error { return back(rec, w.nodes(), "k", w.now) })
			},
			"pause":   func(rt *rapid.T) { w.pause(rapid.Bool().Draw(rt, "paused")) },
			"lead":    func(*rapid.T) { w.lead(w.rec) },
			"lead ":   func(*rapid.T) { w.lead(w.rec) },
			"other":   func(*rapid.T) { w.lead(w.stale) },
			"hears":   func(*rapid.T) { w.stale = w.rec },
			"second":  func(*rapid.T) { w.second() },
			"minute":  func(*rapid.T) { w.now = w.now.Add(time.Minute); w.second() },
			"follows": func(rt *rapid.T) { some(rt).seen = w.rec },
			"all":     func(*rapid.T) { w.follow() },
			"dies":    func(rt *rapid.T) { some(rt).alive = false },
			"returns": func(rt *rapid.T) { m := some(rt); m.alive = true; m.restart() },
			"image": func(rt *rapid.T) {
				some(rt).has[rapid.SampledFrom([]string{"B", "C"}).Draw(rt, "image")] = rapid.Bool().Draw(rt, "has")
			},
			"joins": func(rt *rapid.T) {
				if len(w.machines) < 5 {
					w.machines = append(w.machines, w.newMachine(fmt.Sprintf("n%d", len(w.machines)+1)))
				}
			},
			"": func(rt *rapid.T) { w.check() },
		})
		w.end(rt)
	})
}

func (w *world) pause(paused bool) {
	w.change(func(rec *pb.RuntimeRecord) error { return setPaused(rec, paused, w.now) })
}

// follow has everybody see the record.
func (w *world) follow() {
	for _, m := range w.machines {
		m.seen = w.rec
	}
}

// check is what holds at any time for those that have seen the record.
func (w *world) check() {
	partly := 0
	for _, m := range w.machines {
		p := PlanOf(w.rec, m.id, "A", func(d string) bool { return m.has[d] })
		if p.Image == "" || p.Image == p.Next || (p.Percent > 0) != (p.Next != "") {
			w.rt.Errorf("%s: %+v", m.id, p)
		}
		if p.Percent > 0 && p.Percent < 100 {
			partly++
		}
		if p.Next != "" && !active(w.rec.GetRollout()) {
			w.rt.Errorf("%s has a next image, and nothing is rolled out", m.id)
		}
	}
	if partly > 1 {
		w.rt.Errorf("%d canaries", partly)
	}
}

// end is when all is well again, at the first machine at least: others may be gone for good, or lack an image.
func (w *world) end(rt *rapid.T) {
	for i, m := range w.machines {
		if i == 0 || rapid.Bool().Draw(rt, "comes back") {
			m.alive = true
		}
		if i == 0 || rapid.Bool().Draw(rt, "gets images") {
			m.has["B"], m.has["C"] = true, true
		}
	}
	w.pause(false)
	for n := 0; n < 2000 && !w.settled(); n++ {
		w.follow()
		w.second()
		w.lead(w.rec)
	}
	r := w.rec.GetRollout()
	if active(r) {
		w.rt.Fatalf("it sticks: %v", r)
	}
	if w.kinds[r.GetImage()] != works && r.GetState() == Done {
		w.rt.Errorf("image %s went out although it fails", r.GetImage())
	}
	for _, m := range w.machines {
		if want := w.image(); !m.settled(want) {
			w.rt.Errorf("%s: plan %+v, containers %v, the image is %s", m.id, m.plan(), m.warm, want)
		}
	}
}

func (w *world) image() string { return cmp.Or(w.rec.GetImage(), "A") }

// settled says that a machine that can has containers of one image alone.
func (m *machine) settled(image string) bool {
	p := m.plan()
	return !m.alive || !m.has[image] || p.Image == image && p.Next == "" && len(m.warm) == 1 && m.warm[image] > 0
}

// settled says that nothing is under way anywhere.
func (w *world) settled() bool {
	return !active(w.rec.GetRollout()) && !slices.ContainsFunc(w.machines, func(m *machine) bool { return !m.settled(w.image()) })
}

// A rollout that nobody looks at any more is seen to be overdue; a paused one and one that is over are not.
func TestStanding(t *testing.T) {
	now := time.Unix(1e9, 0)
	r := &pb.Rollout{State: Rolling, Gate: withDefaults(nil), Began: timestamppb.New(now), WatchedSince: timestamppb.New(now.Add(time.Minute))}
	view := viewOf(&pb.RuntimeRecord{Rollout: r})
	if got := Standing(view, now.Add(DefaultWatch)); got.Overdue != 0 || got.State != Rolling {
		t.Errorf("in time: %+v", got)
	}
	if got := Standing(view, now.Add(DefaultWatch+3*time.Minute)); got.Overdue != 2*time.Minute {
		t.Errorf("late: %+v", got)
	}
	r.Paused = true
	if got := Standing(view, now.Add(time.Hour)); got.Overdue != 0 {
		t.Errorf("paused: %+v", got)
	}
	if got := Standing(nil, now); got.State != "" {
		t.Errorf("none: %+v", got)
	}
}
