package router

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// rejoinEvery is how often a live tail looks for controllers that have come, or come back.
const rejoinEvery = 2 * time.Second

// tail is one Logs.Tail over all controllers: what they keep, merged by time, then what comes, as it comes. A controller that
// does not answer, or is lost, is named in the stream; when it is there again its lines go on.
type tail struct {
	ctx     context.Context
	cancel  context.CancelFunc
	sources LogSources
	tenant  tenant.ID
	req     *pb.TailRequest
	readers sync.WaitGroup
	told    chan told     // what readers say
	open    chan struct{} // closed when the kept lines have gone: live ones wait until then

	sending sync.Mutex
	send    func(*pb.LogLine) error
	begun   func() // the kept lines have gone, live ones follow

	// Only run's goroutine:
	reading map[string]bool // those with a reader
	ended   map[string]bool // those that have said that nothing more comes
	missing map[string]bool // those that the caller knows to be missing
}

// told is what a reader says of its source: what it keeps, or that it is over.
type told struct {
	name string
	kept []*pb.LogLine
	over bool
	err  error
}

func newTail(ctx context.Context, sources LogSources, t tenant.ID, req *pb.TailRequest, send func(*pb.LogLine) error,
	begun func()) *tail {
	ctx, cancel := context.WithCancel(ctx)
	return &tail{
		ctx: ctx, cancel: cancel, sources: sources, tenant: t, req: req, send: send, begun: begun, told: make(chan told), open: make(chan struct{}),
		reading: map[string]bool{}, ended: map[string]bool{}, missing: map[string]bool{},
	}
}

// run returns when the caller has gone, when no controller has more to say, or when a line cannot be sent.
func (x *tail) run() error {
	defer x.readers.Wait()
	defer x.cancel()
	kept := x.start()
	for name := range x.missing {
		if err := x.sendMissing(name); err != nil {
			return err
		}
	}
	for _, l := range mergeLines(kept, int(x.req.GetLines())) {
		if err := x.sendLine(l); err != nil {
			return err
		}
	}
	if !x.req.GetFollow() {
		return nil
	}
	x.begun()
	close(x.open)
	return x.follow()
}

// start asks all sources and returns what they keep. Who does not answer in time is missing.
func (x *tail) start() (kept [][]*pb.LogLine) {
	there, missing := x.sources.LogSources()
	for _, name := range missing {
		x.missing[name] = true
	}
	waiting := map[string]bool{}
	for _, s := range there {
		waiting[s.Name()] = true
		x.read(s, x.req.GetLines())
	}
	late := time.NewTimer(sourceTimeout)
	defer late.Stop()
	for len(waiting) > 0 {
		select {
		case <-x.ctx.Done():
			return nil
		case <-late.C:
			for name := range waiting {
				x.missing[name] = true
			}
			return kept
		case m := <-x.told:
			if !m.over {
				kept = append(kept, m.kept)
			} else if x.over(m); m.err != nil {
				x.missing[m.name] = true
			}
			delete(waiting, m.name)
		}
	}
	return kept
}

// over notes the end of a reader.
func (x *tail) over(m told) {
	delete(x.reading, m.name)
	if m.err == nil {
		x.ended[m.name] = true
	}
}

// read starts a reader of s, which begins with so many kept lines.
func (x *tail) read(s LogSource, lines int32) {
	name := s.Name()
	x.reading[name] = true
	req := proto.Clone(x.req).(*pb.TailRequest)
	req.Lines = lines
	x.readers.Go(func() {
		err := s.Tail(x.ctx, x.tenant, req, func(kept []*pb.LogLine) error { return x.tell(told{name: name, kept: kept}) }, x.live)
		_ = x.tell(told{name: name, over: true, err: err})
	})
}

func (x *tail) tell(m told) error {
	select {
	case x.told <- m:
		return nil
	case <-x.ctx.Done():
		return x.ctx.Err()
	}
}

// live sends a line that has just come, behind the kept ones.
func (x *tail) live(l *pb.LogLine) error {
	select {
	case <-x.open:
	case <-x.ctx.Done():
		return x.ctx.Err()
	}
	if err := x.sendLine(l); err != nil {
		x.cancel()
		return err
	}
	return nil
}

func (x *tail) sendLine(l *pb.LogLine) error {
	x.sending.Lock()
	defer x.sending.Unlock()
	return x.send(l)
}

// sendMissing says that the lines of a controller are missing from here on.
func (x *tail) sendMissing(name string) error {
	return x.sendLine(&pb.LogLine{Time: timestamppb.Now(), Missing: name})
}

// follow goes on with what comes, and looks for controllers that do.
func (x *tail) follow() error {
	tick := time.NewTicker(rejoinEvery)
	defer tick.Stop()
	for {
		select {
		case <-x.ctx.Done():
			return nil
		case m := <-x.told:
			if !m.over { // one that was late, or has come: what it keeps is older than what was sent already
				delete(x.missing, m.name)
				break
			}
			x.over(m)
			if m.err != nil && !x.missing[m.name] {
				x.missing[m.name] = true
				if err := x.sendMissing(m.name); err != nil {
					return err
				}
			}
			if len(x.reading) == 0 && m.err == nil && len(x.missing) == 0 {
				return nil
			}
		case <-tick.C:
			if err := x.rejoin(); err != nil {
				return err
			}
		}
	}
}

// rejoin begins to read from controllers that were not there before, and tells of those that are not there any more.
func (x *tail) rejoin() error {
	there, missing := x.sources.LogSources()
	for _, s := range there {
		name := s.Name()
		if !x.reading[name] && !x.ended[name] {
			x.read(s, 0)
		}
	}
	for _, name := range missing {
		if x.missing[name] || x.ended[name] {
			continue
		}
		x.missing[name] = true
		if err := x.sendMissing(name); err != nil {
			return err
		}
	}
	return nil
}

// mergeLines is the newest n of all, oldest first. Those of a single controller stay in their order, whatever their times say.
func mergeLines(parts [][]*pb.LogLine, n int) []*pb.LogLine {
	if len(parts) == 1 {
		return parts[0]
	}
	all := slices.Concat(parts...)
	slices.SortStableFunc(all, func(a, b *pb.LogLine) int { return a.GetTime().AsTime().Compare(b.GetTime().AsTime()) })
	return all[max(0, len(all)-n):]
}
