// Package metrics defines every metric that Paddock exposes, with unit and meaning, and nothing else: who counts what
// is decided where the thing happens. No label ever carries a tenant's id, a function's name or anything else that a
// stranger chooses, so that the number of series is bounded whatever is called.
package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"paddock/internal/call"
	"paddock/internal/errs"
)

// Transport is how a call came to the router.
type Transport uint8

// The transports.
const (
	HTTP       Transport = iota // POST /v1/run, POST …/invoke
	HTTPStream                  // ANY …/http/…
	GRPC                        // Sandbox.Invoke
	GRPCStream                  // Sandbox.InvokeStream
	transports
)

var transportNames = [transports]string{"http", "http_stream", "grpc", "grpc_stream"}

func (t Transport) String() string { return transportNames[t] }

// Outcomes are "ok" and the kinds of internal/errs.
const outcomeOK = "ok"

var outcomeNames = append([]string{outcomeOK}, kindNames()...)

func kindNames() []string {
	return []string{
		string(errs.UserError), string(errs.Refused), string(errs.LoadError), string(errs.Timeout), string(errs.OutOfMemory),
		string(errs.OutputTooLarge), string(errs.SandboxLost), string(errs.Limited), string(errs.NoCapacity),
		string(errs.NotFound), string(errs.Invalid), string(errs.Conflict), string(errs.Unauthenticated),
		string(errs.Denied), string(errs.Cancelled), string(errs.Internal),
	}
}

func outcomeIndex(k errs.Kind) int {
	if k == "" {
		return 0
	}
	for i, name := range outcomeNames[1:] {
		if name == string(k) {
			return i + 1
		}
	}
	return len(outcomeNames) - 1 // internal
}

// startNames are the start kinds; the first is of calls that no container served.
var startNames = [...]string{"none", string(call.StartWarm), string(call.StartPooled), string(call.StartCold),
	string(call.StartThawed)}

func startIndex(k call.StartKind) int {
	for i, name := range startNames[1:] {
		if name == string(k) {
			return i + 1
		}
	}
	return 0
}

// stageBuckets, seconds: warm calls take tens of microseconds, cold starts parts of a second, the longest call 300 s.
var stageBuckets = []float64{50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3,
	1, 2.5, 5, 10, 30, 60, 300}

// Router holds what a router counts. Safe for concurrent use; the methods allocate nothing once a series exists.
type Router struct {
	calls      *prometheus.CounterVec
	callSeries [len(startNames)][transports][]atomic.Pointer[prometheus.Counter]
	accepted   prometheus.Counter
	inFlight   prometheus.Gauge
	queue      prometheus.Observer
	assign     prometheus.Observer
	load       prometheus.Observer
	run        prometheus.Observer
	total      prometheus.Observer
	refused    *prometheus.CounterVec
	authFailed *prometheus.CounterVec
	requests   *prometheus.CounterVec
	retries    prometheus.Counter
	unspent    prometheus.Counter // retries that the budget refused
	streams    prometheus.Gauge
	headers    prometheus.Counter
	conns      *prometheus.CounterVec
}

// NewRouter makes the router's metrics and registers them.
func NewRouter(reg prometheus.Registerer) (*Router, error) {
	stages := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "paddock_call_stage_seconds",
		Help:    "Where calls spend their time, by stage; queue, assign and load are observed only where they took place.",
		Buckets: stageBuckets,
	}, []string{"stage"})
	m := &Router{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paddock_calls_total",
			Help: "Accepted calls that ended, by outcome, by what the call found (start) and by transport.",
		}, []string{"outcome", "start", "transport"}),
		accepted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "paddock_calls_accepted_total",
			Help: "Calls that were admitted; equals the sum of paddock_calls_total and paddock_calls_in_flight.",
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "paddock_calls_in_flight", Help: "Calls admitted and not ended.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paddock_admissions_refused_total",
			Help: "Calls refused before they were admitted, by cause.",
		}, []string{"cause"}),
		authFailed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paddock_auth_failures_total",
			Help: "Requests refused for their credential, by reason: missing, malformed, unknown, expired, " +
				"stale, role, tenant, suspended.",
		}, []string{"reason"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paddock_management_requests_total",
			Help: "Requests other than calls, by method of the API and outcome.",
		}, []string{"method", "outcome"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "paddock_call_retries_total",
			Help: "Resolves repeated by the router, of calls that had not started or were marked idempotent.",
		}),
		unspent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "paddock_call_retries_refused_total",
			Help: "Resolves that were not repeated because their tenant's budget was spent: a tenth of its calls.",
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "paddock_invoke_streams_open", Help: "Open InvokeStream streams.",
		}),
		conns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paddock_connections_refused_total",
			Help: "Connections refused before anything was read, by listener (http, grpc) and by what was full (address, total).",
		}, []string{"listener", "full"}),
		headers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "paddock_response_headers_dropped_total",
			Help: "Header fields of functions' answers that the header filter dropped.",
		}),
	}
	m.queue, m.assign = stages.WithLabelValues("queue"), stages.WithLabelValues("assign")
	m.load, m.run, m.total = stages.WithLabelValues("load"), stages.WithLabelValues("run"), stages.WithLabelValues("total")
	for s := range m.callSeries {
		for t := range m.callSeries[s] {
			m.callSeries[s][t] = make([]atomic.Pointer[prometheus.Counter], len(outcomeNames))
		}
	}
	return m, register(reg, stages, m.calls, m.accepted, m.inFlight, m.refused, m.authFailed, m.requests, m.retries, m.unspent,
		m.streams, m.headers, m.conns)
}

func register(reg prometheus.Registerer, all ...prometheus.Collector) error {
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// Accepted counts a call that was admitted; Ended must follow.
func (m *Router) Accepted() {
	m.accepted.Inc()
	m.inFlight.Inc()
}

// Ended counts the end of an accepted call: kind is "" for success, start "" if no container served it.
func (m *Router) Ended(kind errs.Kind, start call.StartKind, t Transport, s *call.Stages) {
	m.inFlight.Dec()
	m.series(kind, start, t).Inc()
	m.total.Observe(s.Total.Seconds())
	observe(m.queue, s.Queue)
	observe(m.assign, s.Assign)
	observe(m.load, s.Load)
	observe(m.run, s.Run)
}

func observe(o prometheus.Observer, d time.Duration) {
	if d > 0 {
		o.Observe(d.Seconds())
	}
}

// series resolves the labels once per series.
func (m *Router) series(kind errs.Kind, start call.StartKind, t Transport) prometheus.Counter {
	s, o := startIndex(start), outcomeIndex(kind)
	slot := &m.callSeries[s][t][o]
	if c := slot.Load(); c != nil {
		return *c
	}
	c := m.calls.WithLabelValues(outcomeNames[o], startNames[s], t.String())
	slot.Store(&c)
	return c
}

// Refused counts a call that was not admitted: rate, concurrency, suspended, draining or overload.
func (m *Router) Refused(cause string) { m.refused.WithLabelValues(cause).Inc() }

// ConnectionRefused counts a connection that a listener did not take.
func (m *Router) ConnectionRefused(listener, full string) {
	m.conns.WithLabelValues(listener, full).Inc()
}

// AuthFailed counts a refusal of a credential. The reason is for the operator; callers all see the same answer.
func (m *Router) AuthFailed(reason string) { m.authFailed.WithLabelValues(reason).Inc() }

// Request counts a management request by full gRPC method or HTTP pattern, both of them ours; kind is "" for success.
func (m *Router) Request(method string, kind errs.Kind) {
	m.requests.WithLabelValues(method, outcomeNames[outcomeIndex(kind)]).Inc()
}

// Retried counts a resolve that was repeated.
func (m *Router) Retried() { m.retries.Inc() }

// RetryRefused counts a resolve that the tenant's budget did not let be repeated.
func (m *Router) RetryRefused() { m.unspent.Inc() }

// StreamOpened and StreamClosed keep the number of open InvokeStream streams.
func (m *Router) StreamOpened() { m.streams.Inc() }

// StreamClosed undoes StreamOpened.
func (m *Router) StreamClosed() { m.streams.Dec() }

// HeadersDropped counts header fields that the filter dropped.
func (m *Router) HeadersDropped(n int) {
	if n > 0 {
		m.headers.Add(float64(n))
	}
}

// RegisterCatalogAge exposes how long ago the watch of the store was last known to be live.
func RegisterCatalogAge(reg prometheus.Registerer, age func() time.Duration) error {
	return reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "paddock_catalog_age_seconds",
		Help: "Time since the store's watch was last known to be live; keys fail closed past auth_stale_max.",
	}, func() float64 { return age().Seconds() }))
}

// Pool is a snapshot of one pool. Counts are containers, sizes bytes; the totals only ever grow.
type Pool struct {
	Creating, Ready, Assigned, Frozen, Draining int // Frozen are among Assigned
	Waiting                                     int // calls that wait for a container
	Running                                     int // calls inside containers
	MinReady, MaxReady, MaxContainers           int
	MemoryBudgetBytes, MemoryReservedBytes      int64
	Created, CreateFailed                       int64
	Recycled                                    map[string]int64 // by cause
	Leaked                                      int64            // orphans that sweeps found
	Yielded                                     int64            // times that a tenant began to yield the CPUs
}

// poolCollector turns one snapshot per scrape into samples, so that the figures of a scrape belong together.
type poolCollector struct {
	snapshot                                            func() Pool
	containers, limits, waiting, running                *prometheus.Desc
	budget, reserved, created, failed, recycled, leaked *prometheus.Desc
	yielded                                             *prometheus.Desc
}

// NewPoolCollector exposes the pool that snapshot describes; snapshot is called once per scrape and must not block.
func NewPoolCollector(snapshot func() Pool) prometheus.Collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("paddock_pool_"+name, help, labels, nil)
	}
	return &poolCollector{
		snapshot:   snapshot,
		containers: d("containers", "Containers by state; frozen ones are counted as assigned too.", "state"),
		limits:     d("limit", "Configured bounds of the pool.", "limit"),
		waiting:    d("waiting", "Calls that wait for a container."),
		running:    d("running", "Calls inside containers."),
		budget:     d("memory_budget_bytes", "What all containers together may use."),
		reserved:   d("memory_reserved_bytes", "What is reserved: limits of unfrozen, use of frozen containers."),
		created:    d("created_total", "Containers made."),
		failed:     d("create_failures_total", "Containers that could not be made."),
		recycled:   d("recycled_total", "Containers destroyed, by cause.", "cause"),
		leaked:     d("leaked_total", "Containers that a sweep found and nobody wanted."),
		yielded:    d("yielded_total", "Times that a tenant used more than its share of the CPUs and began to yield to the others."),
	}
}

// Describe implements prometheus.Collector.
func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.containers, c.limits, c.waiting, c.running, c.budget, c.reserved, c.created,
		c.failed, c.recycled, c.leaked, c.yielded} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *poolCollector) Collect(ch chan<- prometheus.Metric) {
	p := c.snapshot()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(c.containers, float64(p.Creating), "creating")
	gauge(c.containers, float64(p.Ready), "ready")
	gauge(c.containers, float64(p.Assigned), "assigned")
	gauge(c.containers, float64(p.Frozen), "frozen")
	gauge(c.containers, float64(p.Draining), "draining")
	gauge(c.limits, float64(p.MinReady), "min_ready")
	gauge(c.limits, float64(p.MaxReady), "max_ready")
	gauge(c.limits, float64(p.MaxContainers), "max_containers")
	gauge(c.waiting, float64(p.Waiting))
	gauge(c.running, float64(p.Running))
	gauge(c.budget, float64(p.MemoryBudgetBytes))
	gauge(c.reserved, float64(p.MemoryReservedBytes))
	count(c.created, p.Created)
	count(c.failed, p.CreateFailed)
	for cause, n := range p.Recycled {
		count(c.recycled, n, cause)
	}
	count(c.leaked, p.Leaked)
	count(c.yielded, p.Yielded)
}
