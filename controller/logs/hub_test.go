package logs

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
)

func line(t tenant.ID, text string) call.LogLine {
	return call.LogLine{Tenant: t, Text: text, Level: "info", Function: "f", Call: "c1", Time: time.Now()}
}

func texts(lines []call.LogLine) string {
	var b []string
	for _, l := range lines {
		b = append(b, l.Text)
	}
	return strings.Join(b, ",")
}

// plenty bounds nothing that a test writes; room is bounds for so many bytes of lines.
var plenty = Limits{Bytes: 1 << 40}

func room(lines int64) Limits { return Limits{Bytes: lineShare * lines} }

func TestKeepsNewestPerTenant(t *testing.T) {
	h := New(Options{})
	for i := range 10 {
		h.Publish(line("a", fmt.Sprintf("a%d", i)), room(3*(lineOverhead+2)))
	}
	h.Publish(line("b", "b0"), plenty)
	if got := texts(h.Kept("a", Filter{}, 100, time.Now())); got != "a7,a8,a9" {
		t.Errorf("a keeps %q", got)
	}
	if got := texts(h.Kept("a", Filter{}, 2, time.Now())); got != "a8,a9" {
		t.Errorf("the newest 2 of a: %q", got)
	}
	if got := texts(h.Kept("b", Filter{}, 100, time.Now())); got != "b0" {
		t.Errorf("b keeps %q", got)
	}
}

// TestTheLoudPushOutTheLoud: where the total is reached, the little that a quiet tenant has stays, however long ago it came.
func TestTheLoudPushOutTheLoud(t *testing.T) {
	size := int64(lineOverhead + 1)
	h := New(Options{TotalBytes: 40 * size})
	h.Publish(line("quiet", "1"), plenty)
	for i := range 1000 {
		h.Publish(line(tenant.ID(fmt.Sprintf("loud%d", i%3)), "1"), plenty)
		if st := h.Stats(); st.Bytes > 40*size {
			t.Fatalf("holds %+v, want at most %d bytes", st, 40*size)
		}
	}
	if got := texts(h.Kept("quiet", Filter{}, 9, time.Now())); got != "1" {
		t.Errorf("the quiet tenant keeps %q", got)
	}
	for i := range 3 {
		if n := len(h.Kept(tenant.ID(fmt.Sprintf("loud%d", i)), Filter{}, 99, time.Now())); n < 6 || n > 26 {
			t.Errorf("loud%d keeps %d lines of 39 that three have", i, n)
		}
	}
}

func TestOldLinesGo(t *testing.T) {
	h := New(Options{})
	now := time.Now()
	limits := Limits{Bytes: 1 << 20, Retention: time.Hour}
	for i, age := range []time.Duration{3 * time.Hour, 2 * time.Hour, 30 * time.Minute, 0} {
		l := line("a", fmt.Sprint(i))
		l.Time = now.Add(-age)
		h.Publish(l, limits)
		l.Tenant = "b"
		h.Publish(l, limits)
	}
	if got := texts(h.Kept("a", Filter{}, 9, now)); got != "2,3" {
		t.Errorf("keeps %q", got)
	}
	if got := texts(h.Kept("a", Filter{}, 9, now.Add(45*time.Minute))); got != "3" {
		t.Errorf("later it shows %q", got)
	}
	h.Sweep(now.Add(45*time.Minute), func(t tenant.ID) (Limits, bool) { return limits, t == "a" })
	if st := h.Stats(); st.Tenants != 1 || st.Bytes != lineOverhead+1 {
		t.Errorf("after a sweep it holds %+v", st)
	}
	h.Sweep(now.Add(2*time.Hour), func(tenant.ID) (Limits, bool) { return limits, true })
	if st := h.Stats(); st != (Stats{}) {
		t.Errorf("in the end it holds %+v", st)
	}
}

func TestLowerLimitsHoldAtTheNextSweep(t *testing.T) {
	h := New(Options{})
	for i := range 100 {
		h.Publish(line("a", fmt.Sprint(i)), plenty)
	}
	h.Sweep(time.Now(), func(tenant.ID) (Limits, bool) { return room(2 * (lineOverhead + 2)), true })
	if got := texts(h.Kept("a", Filter{}, 9, time.Now())); got != "98,99" {
		t.Errorf("keeps %q", got)
	}
	h.Publish(line("a", "more"), plenty)
	if got := texts(h.Kept("a", Filter{}, 9, time.Now())); got != "98,99,more" {
		t.Errorf("keeps %q", got)
	}
}

func TestALineLargerThanTheRingIsNotKept(t *testing.T) {
	h := New(Options{})
	_, s := h.Subscribe("a", Filter{}, 0, time.Now())
	h.Publish(line("a", strings.Repeat("x", 1000)), room(300))
	if st := h.Stats(); st.Bytes != 0 {
		t.Errorf("holds %+v", st)
	}
	if got := <-s.Lines(); len(got.Text) != 1000 {
		t.Errorf("a listener got %d bytes", len(got.Text))
	}
}

func TestFilter(t *testing.T) {
	l := call.LogLine{Function: "rule", Call: "c", Level: "warn"}
	for _, c := range []struct {
		f    Filter
		want bool
	}{
		{Filter{}, true},
		{Filter{Function: "rule", Call: "c", Level: Warn}, true},
		{Filter{Function: "other"}, false},
		{Filter{Call: "d"}, false},
		{Filter{Level: Error}, false},
	} {
		if got := c.f.Match(l); got != c.want {
			t.Errorf("%+v matches %+v: %v", c.f, l, got)
		}
	}
	if !(Filter{Level: Info}).Match(call.LogLine{Level: "strange"}) {
		t.Error("an unknown level is not taken as info")
	}
}

func TestASlowSubscriberLosesAndIsTold(t *testing.T) {
	h := New(Options{SubscriberLines: 2})
	_, s := h.Subscribe("a", Filter{}, 0, time.Now())
	for range 5 { // three do not fit; nothing blocks
		h.Publish(line("a", "1234"), plenty)
	}
	<-s.Lines()
	<-s.Lines()
	h.Publish(line("a", "next"), plenty)
	if got := <-s.Lines(); got.Text != "next" || got.Dropped != 12 {
		t.Errorf("after the gap came %q with %d bytes dropped, want 12", got.Text, got.Dropped)
	}
	if kept := h.Kept("a", Filter{}, 9, time.Now()); kept[5].Dropped != 0 {
		t.Error("one listener's loss shows in the kept line")
	}
	s.Close()
	s.Close()
	if _, open := <-s.Lines(); open {
		t.Error("a line after Close")
	}
}

func TestSubscribeMissesNothingAndRepeatsNothing(t *testing.T) {
	h := New(Options{SubscriberLines: 5000})
	const n = 2000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			h.Publish(line("a", fmt.Sprint(i)), plenty)
		}
	})
	kept, s := h.Subscribe("a", Filter{}, n, time.Now())
	wg.Wait()
	s.Close()
	got := kept
	for l := range s.Lines() {
		got = append(got, l)
	}
	if len(got) != n {
		t.Fatalf("%d lines of %d", len(got), n)
	}
	for i, l := range got {
		if l.Text != fmt.Sprint(i) {
			t.Fatalf("line %d is %q", i, l.Text)
		}
	}
}

func TestRemoveEndsSubscriptionsAndForgets(t *testing.T) {
	h := New(Options{})
	h.Publish(line("a", "x"), plenty)
	_, s := h.Subscribe("a", Filter{}, 0, time.Now())
	h.Remove("a")
	if _, open := <-s.Lines(); open {
		t.Error("the subscription outlives its tenant")
	}
	s.Close()
	if st := h.Stats(); st != (Stats{}) {
		t.Errorf("left: %+v", st)
	}
	h.Publish(line("a", "new life"), plenty)
	if got := texts(h.Kept("a", Filter{}, 9, time.Now())); got != "new life" {
		t.Errorf("kept %q", got)
	}
}

func TestRoomsGoWithTheLastListener(t *testing.T) {
	h := New(Options{})
	_, s := h.Subscribe("a", Filter{}, 0, time.Now())
	s.Close()
	if st := h.Stats(); st != (Stats{}) {
		t.Errorf("left: %+v", st)
	}
}

func TestClose(t *testing.T) {
	h := New(Options{})
	_, s := h.Subscribe("a", Filter{}, 0, time.Now())
	h.Close()
	h.Close()
	if _, open := <-s.Lines(); open {
		t.Error("open after Close")
	}
	h.Publish(line("a", "late"), plenty)
	if _, s := h.Subscribe("a", Filter{}, 0, time.Now()); true {
		if _, open := <-s.Lines(); open {
			t.Error("a subscription after Close is open")
		}
		s.Close()
	}
	if st := h.Stats(); st != (Stats{}) {
		t.Errorf("left: %+v", st)
	}
}
