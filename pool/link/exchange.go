package link

import (
	"sync"
	"time"

	"paddock/internal/call"
	"paddock/internal/redact"
)

// exchange is one call on the connection, from Do until both Do has returned and its code has ended; then it is used again.
// The first group belongs to Do's goroutine, the rest is guarded by Conn.mu. Do's goroutine alone calls the sink; the reader
// leaves things here and wakes it.
type exchange struct {
	req      *call.Request
	sink     call.Sink
	wake     chan struct{} // buffered(1)
	timer    *time.Timer
	head     []byte // INVOKE's head, encoded before the mutex is taken
	spare    []byte // the buffer that is not data
	began    time.Time
	load     time.Duration
	invoked  time.Time
	limits   invokeLimits
	watch    *watch
	streamed int64  // bytes given to the sink
	input    []byte // INVOKE's body
	clock    stepClock
	stuck    bool          // the event loop stood still in a step whose time was over
	gone     chan struct{} // streamed inputs: closed when Do returns

	id       call.ID
	function string
	code     string
	stream   StreamID
	deadline time.Time
	settled  func()

	sent      bool // a byte of INVOKE was handed to write(2)
	returned  bool // Do is gone; what comes now is dropped
	over      bool // the code has ended, or the connection has: not in the table any more
	cancelled time.Time
	lingers   bool // counted in taint.lingering

	credit    int64 // what the agent may still send
	ungranted int64 // what was consumed and not granted yet
	excess    int64 // what is granted to a cancelled stream, so that an honest agent can finish its body
	body      outBody

	response  *ResponseHead // not yet given to the sink
	headSeen  bool
	data      []byte // not yet given to the sink
	dataEnded bool
	logs      []call.LogLine
	logBytes  int64
	printed   *redact.Stream // its log, of which secrets are taken out; the reader's
	printedOf *redact.Values
	value     []byte // collected
	result    ResultHead
	answered  bool // RESULT came
	bodyDone  bool // and all of its body
	ended     bool // SETTLED came
	tooLarge  bool
	notLoaded bool
	lost      error
	inputErr  error  // the streamed input failed
	piped     *piped // of a pipeline
}

// outBody is what of the input did not fit into INVOKE's frame.
type outBody struct {
	data   []byte // the caller's; copied when it is sent, never after Do returned
	end    bool   // END goes with the last of data
	credit int64
	queued bool
	fed    chan struct{} // streamed inputs: buffered(1), data was taken
}

var exchanges = sync.Pool{New: func() any { return &exchange{wake: make(chan struct{}, 1)} }}

// final says whether nothing more will come for the caller.
func (x *exchange) final() bool {
	return x.lost != nil || x.notLoaded || x.tooLarge || x.answered && x.bodyDone
}

func (x *exchange) wakeUp() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// reset makes x fit for another stream; what is the call's own stays.
func (x *exchange) reset(window int64) {
	x.sent, x.returned, x.over, x.ended, x.cancelled = false, false, false, false, time.Time{}
	x.credit, x.ungranted, x.excess = window, 0, 0
	x.body = outBody{credit: window}
	x.response, x.headSeen, x.dataEnded = nil, false, false
	x.data = x.data[:0]
	x.value, x.result = nil, ResultHead{}
	x.answered, x.bodyDone, x.tooLarge, x.notLoaded, x.lost = false, false, false, false, nil
	x.lingers = false
}

const keepBuffer = 16 << 10

// recycle gives x back. Nobody may hold it: Do has returned and it is in no table or queue.
func (x *exchange) recycle() {
	if cap(x.head) > keepBuffer {
		x.head = nil
	}
	keep := exchange{wake: x.wake, timer: x.timer, head: x.head[:0]}
	*x = keep
	select {
	case <-x.wake:
	default:
	}
	exchanges.Put(x)
}
