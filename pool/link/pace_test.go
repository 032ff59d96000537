package link

import (
	"testing"
	"time"
)

// flood charges batches of a frame for so long and returns how many were taken and how much work that was.
func flood(f Frame, batch int, rest, long time.Duration) (frames int, work time.Duration) {
	var p pace
	clock := time.Unix(1_000_000, 0)
	now := func() time.Time { return clock }
	for end := clock.Add(long); clock.Before(end); {
		for range batch {
			p.charge(&f)
		}
		frames += batch
		clock = clock.Add(p.pause(now) + rest)
	}
	var one pace
	one.charge(&f)
	return frames, time.Duration(frames) * one.since
}

func TestPaceLeavesHonestAgentsAlone(t *testing.T) {
	f := Frame{Type: TypeResult, Head: []byte(`{"cpu":12}`), Body: make([]byte, 100)}
	const batch, every = 32, 200 * time.Microsecond // 160,000 answers a second
	frames, _ := flood(f, batch, every, 2*time.Second)
	if want := int(2 * time.Second / every * batch); frames < want {
		t.Errorf("%d frames were taken in two seconds, want %d", frames, want)
	}
}

func TestPaceBoundsFloods(t *testing.T) {
	for name, f := range map[string]Frame{
		"empty":     {Type: TypeData},
		"long head": {Type: TypeResult, Head: make([]byte, MaxBody)},
		"long body": {Type: TypeData, Body: make([]byte, MaxBody)},
	} {
		const long = 10 * time.Second
		_, work := flood(f, 1000, 0, long)
		most := long*readShare/100 + readBurst + 100*time.Millisecond
		if name == "long head" {
			most += 1000 * 2 * time.Millisecond // a batch is a second's work
		}
		if work > most || work < long*readShare/200 {
			t.Errorf("%s: %v of work in %v, want at most %v", name, work, long, most)
		}
	}
}

func TestRestEndsWithTheConnection(t *testing.T) {
	c := &Conn{done: make(chan struct{})}
	if !c.rest(0) || !c.rest(time.Microsecond) {
		t.Error("the connection is there")
	}
	close(c.done)
	if c.rest(time.Hour) {
		t.Error("the connection is over")
	}
}
