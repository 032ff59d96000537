package logs

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"paddock/internal/call"
	"paddock/internal/tenant"
)

func line(t tenant.ID, text string) call.LogLine {
	return call.LogLine{Tenant: t, Text: text, Level: "info", Function: "f", Call: "c1"}
}

func texts(lines []call.LogLine) string {
	var b []string
	for _, l := range lines {
		b = append(b, l.Text)
	}
	return strings.Join(b, ",")
}

func TestKeepsNewestPerTenant(t *testing.T) {
	h := New(Options{TenantBytes: 3 * (lineOverhead + 2)})
	for i := range 10 {
		h.Publish(line("a", fmt.Sprintf("a%d", i)))
	}
	h.Publish(line("b", "b0"))
	if got := texts(h.Kept("a", Filter{}, 100)); got != "a7,a8,a9" {
		t.Errorf("a keeps %q", got)
	}
	if got := texts(h.Kept("a", Filter{}, 2)); got != "a8,a9" {
		t.Errorf("the newest 2 of a: %q", got)
	}
	if got := texts(h.Kept("b", Filter{}, 100)); got != "b0" {
		t.Errorf("b keeps %q", got)
	}
}

func TestTotalIsBoundedAndTheSilentLoseFirst(t *testing.T) {
	size := lineOverhead + 1
	h := New(Options{TenantBytes: 2 * size, TotalBytes: 4 * size})
	for _, id := range []tenant.ID{"a", "b", "c"} {
		h.Publish(line(id, "1"))
		h.Publish(line(id, "2"))
	}
	st := h.Stats()
	if st.Bytes > 4*size || st.Tenants != 2 {
		t.Fatalf("holds %+v, want at most %d bytes of 2 tenants", st, 4*size)
	}
	if got := texts(h.Kept("a", Filter{}, 9)) + "|" + texts(h.Kept("c", Filter{}, 9)); got != "|1,2" {
		t.Errorf("kept %q", got)
	}
}

func TestALineLargerThanTheRingIsNotKept(t *testing.T) {
	h := New(Options{TenantBytes: 300})
	_, s := h.Subscribe("a", Filter{}, 0)
	h.Publish(line("a", strings.Repeat("x", 1000)))
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
	_, s := h.Subscribe("a", Filter{}, 0)
	for range 5 { // three do not fit; nothing blocks
		h.Publish(line("a", "1234"))
	}
	<-s.Lines()
	<-s.Lines()
	h.Publish(line("a", "next"))
	if got := <-s.Lines(); got.Text != "next" || got.Dropped != 12 {
		t.Errorf("after the gap came %q with %d bytes dropped, want 12", got.Text, got.Dropped)
	}
	if kept := h.Kept("a", Filter{}, 9); kept[5].Dropped != 0 {
		t.Error("one listener's loss shows in the kept line")
	}
	s.Close()
	s.Close()
	if _, open := <-s.Lines(); open {
		t.Error("a line after Close")
	}
}

func TestSubscribeMissesNothingAndRepeatsNothing(t *testing.T) {
	h := New(Options{SubscriberLines: 5000, TenantBytes: 1 << 30})
	const n = 2000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			h.Publish(line("a", fmt.Sprint(i)))
		}
	})
	kept, s := h.Subscribe("a", Filter{}, n)
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
	h.Publish(line("a", "x"))
	_, s := h.Subscribe("a", Filter{}, 0)
	h.Remove("a")
	if _, open := <-s.Lines(); open {
		t.Error("the subscription outlives its tenant")
	}
	s.Close()
	if st := h.Stats(); st != (Stats{}) {
		t.Errorf("left: %+v", st)
	}
	h.Publish(line("a", "new life"))
	if got := texts(h.Kept("a", Filter{}, 9)); got != "new life" {
		t.Errorf("kept %q", got)
	}
}

func TestRoomsGoWithTheLastListener(t *testing.T) {
	h := New(Options{})
	_, s := h.Subscribe("a", Filter{}, 0)
	s.Close()
	if st := h.Stats(); st != (Stats{}) {
		t.Errorf("left: %+v", st)
	}
}

func TestClose(t *testing.T) {
	h := New(Options{})
	_, s := h.Subscribe("a", Filter{}, 0)
	h.Close()
	h.Close()
	if _, open := <-s.Lines(); open {
		t.Error("open after Close")
	}
	h.Publish(line("a", "late"))
	if _, s := h.Subscribe("a", Filter{}, 0); true {
		if _, open := <-s.Lines(); open {
			t.Error("a subscription after Close is open")
		}
		s.Close()
	}
	if st := h.Stats(); st != (Stats{}) {
		t.Errorf("left: %+v", st)
	}
}
