package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"paddock/internal/call"
	"paddock/pool"
	"paddock/pool/cgroup"
	"paddock/pool/enginetest"
	"paddock/runtimes"
)

// TestContract runs the suite of all engines over the Docker engine of this machine.
func TestContract(t *testing.T) {
	r := &recorder{ids: map[call.ContainerID]string{}}
	var digests sync.Map
	t.Cleanup(func() {
		e := newEngine(t, "contract")
		digests.Range(func(digest, _ any) bool {
			if err := e.removeImage(within(t), imageName(runtimes.Image{Runtime: "probe", Digest: digest.(string)})); err != nil {
				t.Error(err)
			}
			return true
		})
	})
	enginetest.Run(t, enginetest.Options{
		NoUserNamespace: true,
		New: func(t *testing.T, s enginetest.State) pool.Engine {
			e, err := New(within(t), Options{ControllerID: s.ControllerID, MemoryBudgetBytes: s.MemoryBudgetBytes})
			if err != nil {
				t.Fatal(err)
			}
			return &recordingEngine{Engine: e, recorder: r}
		},
		// The engine keeps images by digest, so the probe must have a true one. Docker would add the two variables itself.
		Image: func(t *testing.T) runtimes.Image {
			image := enginetest.ProbeImage(t)
			text, err := os.ReadFile(filepath.Join(image.Rootfs, image.Argv[0]))
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(text)
			image.Digest = hex.EncodeToString(sum[:])
			image.Env = append(image.Env, "PATH=/", "HOME=/tmp")
			digests.Store(image.Digest, true)
			return image
		},
		Group: func(t *testing.T, s enginetest.State, id pool.ContainerID) cgroup.Group {
			groups, err := cgroup.Detect()
			if err != nil {
				t.Fatal(err)
			}
			return groups.At("paddock/" + s.ControllerID + "/" + r.get(id))
		},
	})
}

// recorder remembers under which of the daemon's ids, and so in which control group, a container was.
type recorder struct {
	mu  sync.Mutex
	ids map[call.ContainerID]string
}

func (r *recorder) get(id call.ContainerID) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if docker := r.ids[id]; docker != "" {
		return docker
	}
	return "never-made"
}

type recordingEngine struct {
	*Engine
	*recorder
}

func (e *recordingEngine) Create(ctx context.Context, spec pool.Spec) (pool.Container, error) {
	c, err := e.Engine.Create(ctx, spec)
	if err == nil {
		e.mu().Lock()
		e.ids[spec.ID] = c.(*Container).dockerID()
		e.mu().Unlock()
	}
	return c, err
}

func (e *recordingEngine) mu() *sync.Mutex { return &e.recorder.mu }
