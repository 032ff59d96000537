package link

import (
	"log/slog"
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
)

// Defaults of Options. Sizes are bytes.
const (
	// DefaultStreamWindow lets a first HEAD and a first RESULT of the largest size through with room for streaming; 32 calls
	// whose readers have stopped hold at most 32 of it on the host.
	DefaultStreamWindow     = 384 << 10
	DefaultLogWindow        = 256 << 10
	DefaultLogRate          = 256 << 10 // per second
	DefaultCacheEntries     = 256       // a pipeline of 100 steps with their fallbacks, and others beside it
	DefaultCacheBytes       = 32 << 20
	DefaultQueueBytes       = 4 << 20
	DefaultHandshakeTimeout = 5 * time.Second

	minStreamWindow = 2 * (MaxAgentHead + MaxBody)
)

// Options of a connection. Zero values stand for the defaults.
type Options struct {
	Container        call.ContainerID
	StreamWindow     int64 // credit of each stream, both ways
	LogWindow        int64 // credit for all LOG frames
	LogRate          int64 // bytes per second at which it comes back
	MaxInput         int64 // told to the agent; the router enforces it
	MaxOutput        int64 // of a collected answer, where the call's policy does not say
	MaxLog           int64 // of one call, likewise
	CacheEntries     int   // what the agent may keep loaded
	CacheBytes       int64
	QueueBytes       int           // frames waiting for the socket; more is `limited`
	HandshakeTimeout time.Duration // from the agent's connecting to its HELLO
	Adopted          bool          // a former connection had calls, whose secrets nobody here knows

	// OnLog gets every log line, in order, on the connection's reading goroutine: it must not block. nil drops them.
	OnLog  func(call.LogLine)
	Logger *slog.Logger // nil discards
}

func (o Options) withDefaults() Options {
	set(&o.StreamWindow, DefaultStreamWindow)
	o.StreamWindow = max(o.StreamWindow, minStreamWindow)
	set(&o.LogWindow, DefaultLogWindow)
	set(&o.LogRate, DefaultLogRate)
	set(&o.MaxInput, tenant.DefaultInputBytes)
	set(&o.MaxOutput, tenant.DefaultOutputBytes)
	set(&o.MaxLog, tenant.DefaultLogBytes)
	set(&o.CacheEntries, DefaultCacheEntries)
	set(&o.CacheBytes, DefaultCacheBytes)
	set(&o.QueueBytes, DefaultQueueBytes)
	set(&o.HandshakeTimeout, DefaultHandshakeTimeout)
	if o.OnLog == nil {
		o.OnLog = func(call.LogLine) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func set[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

func (o *Options) welcome() Welcome {
	return Welcome{
		Protocol: Protocol, StreamWindow: o.StreamWindow, LogWindow: o.LogWindow, MaxInput: o.MaxInput, MaxOutput: o.MaxOutput,
		MaxLog: o.MaxLog, CacheEntries: o.CacheEntries, CacheBytes: o.CacheBytes,
	}
}
