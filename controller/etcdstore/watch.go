package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"paddock/controller/store"
)

// watchSilence is how long a watch may show no life before it ends as unavailable: the client mends its connection for
// ever without a word, and a half-open one looks alive.
const watchSilence = 5 * store.ProgressInterval

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string, from int64) <-chan store.Batch {
	out := make(chan store.Batch)
	if err := s.enter(); err != nil {
		go func() {
			defer close(out)
			deliver(out, store.Batch{Err: err})
		}()
		return out
	}
	w := &watch{store: s, caller: ctx, out: out, from: from}
	// A watch from a revision that is still to come shows no progress until it has come: begin one earlier and pass over
	// what that brings.
	begin := from
	if from > 1 {
		begin--
	}
	// A stream of its own, told apart by its metadata: progress is answered per stream, once all of its watches are in
	// step.
	own := metadata.AppendToOutgoingContext(ctx, "paddock-watch", strconv.FormatInt(s.watches.Add(1), 10))
	w.ctx, w.cancel = context.WithCancel(clientv3.WithRequireLeader(own))
	stop := context.AfterFunc(s.ctx, w.cancel)
	events := s.client.Watch(w.ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(begin))
	go func() {
		defer s.working.Done()
		defer close(out)
		defer stop()
		defer w.cancel()
		w.run(events)
	}()
	return out
}

type watch struct {
	store  *Store
	caller context.Context // ends when the reader goes away
	ctx    context.Context // ends with it, or with the store
	cancel context.CancelFunc
	out    chan<- store.Batch
	from   int64 // events before it are not delivered
}

// run passes on what arrives until something ends the watch, and says what.
func (w *watch) run(events clientv3.WatchChan) {
	ask := time.NewTicker(store.ProgressInterval)
	defer ask.Stop()
	silence := time.NewTimer(watchSilence)
	defer silence.Stop()
	for {
		select {
		case resp, ok := <-events:
			if !ok {
				w.end(errors.New("the watch ended"))
				return
			}
			if err := resp.Err(); err != nil {
				w.end(err)
				return
			}
			silence.Reset(watchSilence)
			if b, ok := batch(resp, w.from); ok && !w.send(b) {
				w.end(w.ctx.Err())
				return
			}
		case <-ask.C:
			// Its failure shows as silence.
			go func() { _ = w.store.client.RequestProgress(w.ctx) }()
		case <-silence.C:
			w.end(fmt.Errorf("no sign of life for %v", watchSilence))
			return
		case <-w.store.dead:
			w.end(errors.New("the embedded server failed"))
			return
		case <-w.ctx.Done():
			w.end(w.ctx.Err())
			return
		}
	}
}

// send delivers b, and says no if the watch ended first.
func (w *watch) send(b store.Batch) bool {
	select {
	case w.out <- b:
		return true
	case <-w.ctx.Done():
		return false
	}
}

func (w *watch) end(err error) {
	if errors.Is(err, rpctypes.ErrCompacted) {
		err = fmt.Errorf("%w: %w", store.ErrCompacted, err)
	} else {
		err = w.store.translate(w.caller, err)
	}
	deliver(w.out, store.Batch{Err: err})
}

// deliver hands over the last batch. A reader that has gone away is not waited for for long.
func deliver(out chan<- store.Batch, b store.Batch) {
	timeout := time.NewTimer(store.ProgressInterval)
	defer timeout.Stop()
	select {
	case out <- b:
	case <-timeout.C:
	}
}

// batch turns a response into what a reader sees from a revision on; a response that says nothing to it is none.
func batch(resp clientv3.WatchResponse, from int64) (store.Batch, bool) {
	if resp.IsProgressNotify() {
		return store.Batch{Revision: resp.Header.Revision}, true
	}
	var b store.Batch
	for _, e := range resp.Events {
		if e.Kv.ModRevision < from {
			continue
		}
		event := store.Event{Key: string(e.Kv.Key), ModRevision: e.Kv.ModRevision}
		if e.Type == clientv3.EventTypeDelete {
			event.Deleted = true
		} else {
			event.Value = e.Kv.Value
		}
		b.Events = append(b.Events, event)
		// The header's revision may be ahead of what this watch has been sent.
		b.Revision = event.ModRevision
	}
	return b, len(b.Events) > 0
}
