package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Rollout is how the newest rollout of a runtime image stands.
type Rollout struct {
	State   string        // "": there was none
	Overdue time.Duration // how long its present step has gone on beyond the time that it is watched for
}

// Rollouts holds what is counted of rollouts.
type Rollouts struct{ ended *prometheus.CounterVec }

type rolloutCollector struct {
	snapshot       func() Rollout
	states         []string
	state, overdue *prometheus.Desc
}

// NewRollouts makes the metrics of rollouts, which pass through states and end with results, and registers them. snapshot is called once
// per scrape and must not block.
func NewRollouts(reg prometheus.Registerer, states, results []string, snapshot func() Rollout) (*Rollouts, error) {
	m := &Rollouts{ended: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "paddock_rollouts_ended_total",
		Help: "Rollouts of runtime images that ended by themselves, by result (done, rolled_back), at the process that decided.",
	}, []string{"result"})}
	for _, result := range results { // an increase from nothing would not be seen
		m.ended.WithLabelValues(result)
	}
	return m, register(reg, m.ended, &rolloutCollector{
		snapshot: snapshot, states: states,
		state: prometheus.NewDesc("paddock_rollout_state", "1 for the state of the newest rollout of a runtime image.", []string{"state"}, nil),
		overdue: prometheus.NewDesc("paddock_rollout_overdue_seconds",
			"How long the present step of a rollout has gone on beyond the time that it is watched for; 0 while none is under way, or it is paused.", nil, nil),
	})
}

// Ended counts the end of a rollout.
func (m *Rollouts) Ended(result string) { m.ended.WithLabelValues(result).Inc() }

// Describe implements prometheus.Collector.
func (c *rolloutCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.state; ch <- c.overdue }

// Collect implements prometheus.Collector.
func (c *rolloutCollector) Collect(ch chan<- prometheus.Metric) {
	now := c.snapshot()
	for _, state := range c.states {
		is := 0.0
		if state == now.State {
			is = 1
		}
		ch <- prometheus.MustNewConstMetric(c.state, prometheus.GaugeValue, is, state)
	}
	ch <- prometheus.MustNewConstMetric(c.overdue, prometheus.GaugeValue, now.Overdue.Seconds())
}
