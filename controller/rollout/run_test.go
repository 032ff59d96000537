package rollout

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"paddock/controller/catalog"
	"paddock/controller/memstore"
	"paddock/controller/store"
	"paddock/internal/audit"
	"paddock/internal/metrics"
	pb "paddock/proto/paddock/v1"
)

// deaf is a store of which the first commit takes effect without its writer being told; it is its own view.
type deaf struct {
	*memstore.Store
	commits int
}

func (d *deaf) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	rev, err := d.Store.Commit(ctx, txn)
	if d.commits++; d.commits == 1 {
		return 0, store.ErrUnavailable
	}
	return rev, err
}

func (d *deaf) Runtime(name string) (*catalog.RuntimeView, bool) {
	kv, err := d.Get(context.Background(), store.Runtime(name))
	rec := &pb.RuntimeRecord{}
	if err != nil || proto.Unmarshal(kv.Value, rec) != nil {
		return nil, false
	}
	return &catalog.RuntimeView{Record: rec, Revision: kv.ModRevision}, true
}

// Every step is told of once, also the one of which the writer did not hear that it was written.
func TestEveryStepIsToldOnce(t *testing.T) {
	dir := t.TempDir()
	log, err := audit.Open(audit.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	ended, err := metrics.NewRollouts(reg, States, Results, func() metrics.Rollout { return metrics.Rollout{} })
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) { goesOut(t, log, ended) })
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	var steps []string
	files, _ := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split(string(text), `"action":"rollout.`)[1:] {
			step, _, _ := strings.Cut(part, `"`)
			steps = append(steps, step)
		}
	}
	if want := []string{"canary", "rolling", "rolling", "done"}; !slices.Equal(steps, want) {
		t.Errorf("the audit log has the steps %q, want %q", steps, want)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if m.GetCounter() == nil {
				continue
			}
			if result, n := m.GetLabel()[0].GetValue(), m.GetCounter().GetValue(); n != map[string]float64{Done: 1, RolledBack: 0}[result] {
				t.Errorf("%s: %g", result, n)
			}
		}
	}
}

func goesOut(t *testing.T, log *audit.Log, ended *metrics.Rollouts) {
	d := &deaf{Store: memstore.New()}
	defer d.Close()
	value, err := proto.Marshal(record())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Store.Commit(t.Context(), store.Txn{Puts: []store.Put{{Key: store.Runtime("node"), Value: value}}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	Run(ctx, Options{
		Store: d, View: d, Runtime: "node", Audit: log, Metrics: ended, Logger: slog.New(slog.DiscardHandler),
		Nodes: func(context.Context) ([]*pb.NodeStatus, error) {
			return []*pb.NodeStatus{nodeOf("n1", &pb.ImageStatus{Made: 5, Percent: 100, Calls: 500}, &pb.ImageStatus{Calls: 500})}, nil
		},
	})
	if v, _ := d.Runtime("node"); v.Record.GetImage() != "B" || v.Record.GetRollout().GetState() != Done {
		t.Errorf("%v", v.Record)
	}
}
