package cluster

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"pgregory.net/rapid"

	pb "paddock/proto/paddock/v1"
)

// TestAnyDrains runs random histories in which nothing is lost: machines are drained and taken back, processes end as SIGTERM has them and
// begin again, tenants may have fewer containers, or more. No call fails by any of it.
func TestAnyDrains(t *testing.T) {
	histories(t, func(w *world) map[string]func(*rapid.T) {
		time.Sleep(5 * time.Second) // pools are warm, routers have probed
		return map[string]func(*rapid.T){
			"call":   w.callThatServes,
			"call ":  w.callThatServes, // most often
			"call  ": w.callThatServes,
			"wait": func(rt *rapid.T) {
				time.Sleep(time.Duration(rapid.IntRange(1, 30).Draw(rt, "half seconds")) * 500 * time.Millisecond)
			},
			"drain": func(rt *rapid.T) {
				if m := w.machineOf(rt); w.serving() > 1 {
					w.drain(m)
				}
			},
			"undrain": func(rt *rapid.T) { w.undrain(w.machineOf(rt)) },
			"leave": func(rt *rapid.T) {
				if m := w.machineOf(rt); m.runs() && (w.serving() > 1 || m.controller.Draining()) {
					if err := m.leave(); err != nil {
						w.rt.Error(err)
					}
				}
			},
			"start": func(rt *rapid.T) {
				if m := w.machineOf(rt); !m.runs() {
					m.start()
				}
			},
			"maximum": w.maximum,
		}
	})
}

// clock is how rapid prints a history's times.
const clock = "15:04:05.000"

// callThatServes makes a call that has to succeed.
func (w *world) callThatServes(rt *rapid.T) {
	f, tenant := w.frontOf(rt), rapid.SampledFrom(someTenants).Draw(rt, "tenant")
	program := rapid.SampledFrom([]string{"value 1", "id", "sleep 100ms", "sleep 2s"}).Draw(rt, "program")
	w.made++
	w.calls.Go(func() {
		began := time.Now()
		a := w.ask(f, tenant, program, 30*time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.answered++
		if a.Code != http.StatusOK {
			w.wrong = append(w.wrong, fmt.Sprintf("%s: a call that began at %s failed at %s: %s", tenant, began.Format(clock), time.Now().Format(clock), a.Body))
		}
	})
}

// serving is how many machines take new work.
func (w *world) serving() (n int) {
	for _, m := range w.machines {
		if m.runs() && !m.controller.Draining() {
			n++
		}
	}
	return n
}

func (w *world) drain(m *machine) {
	if !m.runs() {
		return
	}
	if _, err := m.controller.Pools().DrainNode(w.operator(), &pb.DrainNodeRequest{Node: m.id}); err != nil {
		w.rt.Error(err)
	}
}

func (w *world) undrain(m *machine) {
	if !m.runs() {
		return
	}
	if _, err := m.controller.Pools().UndrainNode(w.operator(), &pb.UndrainNodeRequest{Node: m.id}); err != nil {
		w.rt.Error(err)
	}
}

func (w *world) maximum(rt *rapid.T) {
	tenant, most := rapid.SampledFrom(someTenants).Draw(rt, "tenant"), rapid.IntRange(1, 3).Draw(rt, "containers")
	if !w.away {
		w.writeTenant(tenant, most)
	}
}
