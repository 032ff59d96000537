package metrics_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/metrics"
)

// samples flattens what a registry shows: "name{label=value,…}" to value; of histograms the count.
func samples(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			out[f.GetName()+labels(m)] = m.GetCounter().GetValue() + m.GetGauge().GetValue() +
				float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func labels(m *dto.Metric) string {
	var parts []string
	for _, l := range m.GetLabel() {
		parts = append(parts, l.GetName()+"="+l.GetValue())
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestEveryKindHasItsOutcome(t *testing.T) {
	reg := prometheus.NewRegistry()
	m, err := metrics.NewRouter(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range append(errs.Kinds(), "") {
		m.Accepted()
		m.Ended(kind, call.StartCold, metrics.GRPC, &call.Stages{Total: time.Millisecond, Run: time.Millisecond})
	}
	got := samples(t, reg)
	for _, kind := range errs.Kinds() {
		if n := got["paddock_calls_total{outcome="+string(kind)+",start=cold,transport=grpc}"]; n != 1 {
			t.Errorf("%s: %g", kind, n)
		}
	}
	n := float64(len(errs.Kinds()) + 1)
	for name, want := range map[string]float64{
		"paddock_calls_total{outcome=ok,start=cold,transport=grpc}": 1, "paddock_calls_in_flight{}": 0,
		"paddock_calls_accepted_total{}": n, "paddock_call_stage_seconds{stage=run}": n,
		"paddock_call_stage_seconds{stage=load}": 0,
	} {
		if got[name] != want {
			t.Errorf("%s: %g, want %g", name, got[name], want)
		}
	}
	if _, err := metrics.NewRouter(reg); err == nil {
		t.Error("registered twice without an error")
	}
}

func TestPoolSnapshotIsTakenOncePerScrape(t *testing.T) {
	reg := prometheus.NewRegistry()
	taken := 0
	reg.MustRegister(metrics.NewPoolCollector(func() metrics.Pool {
		taken++
		return metrics.Pool{Ready: 3, Leaked: 2, Recycled: map[string]int64{"idle": 4}}
	}))
	taken = 0 // registering may have described it
	got := samples(t, reg)
	if taken != 1 || got["paddock_pool_containers{state=ready}"] != 3 || got["paddock_pool_recycled_total{cause=idle}"] != 4 ||
		got["paddock_pool_leaked_total{}"] != 2 {
		t.Errorf("taken %d: %v", taken, got)
	}
}
