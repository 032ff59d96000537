package docker

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/runtimes"
)

// fakeDaemon speaks as much of the Engine API as New and Create need, and fails on demand: a path's entry in faults takes over.
type fakeDaemon struct {
	mu      sync.Mutex
	images  map[string]int              // by id: the status that their removal answers
	faults  map[string]http.HandlerFunc // by the last words of the path, "containers/create"
	removed int
}

func (d *fakeDaemon) fault(path string, f http.HandlerFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults[path] = f
}

func (d *fakeDaemon) removals() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.removed
}

func (d *fakeDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	var fault http.HandlerFunc
	for path, f := range d.faults {
		if strings.HasSuffix(r.URL.Path, path) {
			fault = f
		}
	}
	if r.Method == http.MethodDelete {
		d.removed++
	}
	d.mu.Unlock()
	if fault != nil {
		fault(w, r)
		return
	}
	w.Header().Set("Api-Version", "1.41")
	answer := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/_ping"):
	case strings.HasSuffix(path, "/info"):
		runtimes := map[string]any{"runc": map[string]any{}}
		answer(map[string]any{"ServerVersion": "fake", "CgroupDriver": "systemd", "Runtimes": runtimes})
	case strings.HasSuffix(path, "/version"):
		answer(map[string]any{"ApiVersion": "1.41"})
	case strings.HasSuffix(path, "/images/json"):
		var list []any
		for id := range d.images {
			list = append(list, map[string]any{"Id": id, "Labels": map[string]string{labelImage: "digest-of-" + id}})
		}
		answer(list)
	case strings.Contains(path, "/images/") && r.Method == http.MethodDelete:
		_, id, _ := strings.Cut(path, "/images/")
		if status := d.images[id]; status != http.StatusOK {
			http.Error(w, `{"message": "no"}`, status)
			return
		}
		delete(d.images, id)
		answer([]any{})
	case strings.Contains(path, "/images/"):
		answer(map[string]any{"Id": "sha256:1", "Config": map[string]any{"Labels": map[string]string{labelImage: fakeImage.Digest}}})
	case strings.HasSuffix(path, "/containers/create"):
		w.WriteHeader(http.StatusCreated)
		answer(map[string]any{"Id": fakeID})
	case strings.HasSuffix(path, "/containers/json"):
		answer([]any{})
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, `{"message": "the fake daemon does not know `+path+`"}`, http.StatusNotImplemented)
	}
}

var fakeID = strings.Repeat("cd", 32)

var fakeImage = runtimes.Image{Runtime: "node", Digest: strings.Repeat("ab", 32), Argv: []string{"/node"}, HeapPercent: 50}

// fakeEngine returns an engine over a fake daemon.
func fakeEngine(t *testing.T) (*Engine, *fakeDaemon) {
	t.Helper()
	d := &fakeDaemon{faults: map[string]http.HandlerFunc{}}
	path := filepath.Join(t.TempDir(), "d.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: d}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	e, err := New(within(t), Options{Host: "unix://" + path, ControllerID: testenv.ControllerID(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e, d
}

func fakeSpec(t *testing.T) pool.Spec {
	return pool.Spec{
		ID: newID(t), Image: fakeImage, UID: 1_000_000, LinkDir: "/tmp",
		MemoryBytes: 64 << 20, CPUMillis: 1000, TmpBytes: 1 << 20,
	}
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// TestHungDaemon: every call comes back by its deadline, says what is wrong, and leaves no goroutine behind.
func TestHungDaemon(t *testing.T) {
	for _, path := range []string{"/containers/create", "/attach", "/containers/json", "/json"} {
		t.Run(path, func(t *testing.T) {
			e, d := fakeEngine(t)
			d.fault(path, hang)
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			var err error
			if path == "/containers/json" {
				_, err = e.List(ctx)
			} else {
				_, err = e.Create(ctx, fakeSpec(t))
			}
			if took := time.Since(start); took > 8*time.Second { // the daemon would hang for ever, and we give it 20 s by ourselves
				t.Errorf("a deadline of 50 ms took %v", took)
			}
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "does not answer: is dockerd running?") {
				t.Errorf("error: %v", err)
			}
			settle(t, before)
		})
	}
}

// TestCreateThatIsCancelled: the daemon makes what it was asked for, however late; the answer is waited for, and it goes.
func TestCreateThatIsCancelled(t *testing.T) {
	e, d := fakeEngine(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	d.fault("/containers/create", func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		select {
		case <-answer:
		case <-r.Context().Done():
			t.Error("the request was given up: what it makes would stay")
		}
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"Id": fakeID})
	})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := e.Create(ctx, fakeSpec(t))
		failed <- err
	}()
	<-asked
	cancel()
	select {
	case err := <-failed:
		t.Errorf("it did not wait for the daemon: %v", err)
	case <-time.After(createGrace + createGrace/4): // what a deadline would have left it
	}
	close(answer)
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
	if d.removals() != 1 {
		t.Errorf("%d removals, want 1", d.removals())
	}
}

// settle waits until the number of goroutines is back, a few connections apart.
func settle(t *testing.T, before int) {
	t.Helper()
	ctx := within(t)
	for runtime.NumGoroutine() > before+4 {
		select {
		case <-ctx.Done():
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestHungDaemonHoldsFewCalls: callers queue for a slot until their own deadlines; they do not pile up in the daemon.
func TestHungDaemonHoldsFewCalls(t *testing.T) {
	e, d := fakeEngine(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var mu sync.Mutex
	inside, most := 0, 0
	d.fault("/containers/json", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		inside++
		if ctx.Err() == nil { // later the daemon has yet to hear who has hung up
			most = max(most, inside)
		}
		mu.Unlock()
		hang(w, r)
		mu.Lock()
		inside--
		mu.Unlock()
	})
	var callers sync.WaitGroup
	for range 4 * maxCalls {
		callers.Go(func() {
			if _, err := e.List(ctx); !errors.Is(err, ErrUnavailable) {
				t.Errorf("error: %v", err)
			}
		})
	}
	callers.Wait()
	mu.Lock()
	defer mu.Unlock()
	if most == 0 || most > maxCalls {
		t.Errorf("%d calls at once in the daemon, want 1 to %d", most, maxCalls)
	}
}

// TestFailingDaemon: a failed create is taken back, unless the container is somebody else's.
func TestFailingDaemon(t *testing.T) {
	e, d := fakeEngine(t)
	fail := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"message": "it hurts"}`, status)
		}
	}
	for _, tt := range []struct {
		path    string
		status  int
		text    string
		removes int
	}{
		{"/containers/create", 500, "it hurts", 1},
		{"/containers/create", 409, "exists already", 0},
		{"/attach", 500, "docker attach", 1},
		{"/start", 500, "docker start", 1},
	} {
		t.Run(tt.path+" "+http.StatusText(tt.status), func(t *testing.T) {
			d.fault("/attach", func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				_, _ = conn.Write([]byte("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"))
			})
			d.fault(tt.path, fail(tt.status))
			defer func() {
				d.mu.Lock()
				d.faults = map[string]http.HandlerFunc{}
				d.mu.Unlock()
			}()
			before := d.removals()
			_, err := e.Create(within(t), fakeSpec(t))
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error: %v", err)
			}
			if n := d.removals() - before; n != tt.removes {
				t.Errorf("%d removals, want %d", n, tt.removes)
			}
			if len(e.containers) != 0 {
				t.Error("the engine still knows a container that was not made")
			}
		})
	}
}

func TestNoDaemon(t *testing.T) {
	_, err := New(within(t), Options{Host: "unix:///nowhere/docker.sock", ControllerID: "x"})
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "unix:///nowhere/docker.sock") {
		t.Errorf("error: %v", err)
	}
	if _, err := New(within(t), Options{Host: "tcp://10.0.0.1:2375", ControllerID: "x"}); err == nil {
		t.Error("an engine on another machine was accepted")
	}
	e, _ := fakeEngine(t)
	o := Options{Host: e.api.host, ControllerID: "x", Runtime: "runsc"}
	if _, err := New(within(t), o); err == nil || !strings.Contains(err.Error(), `no runtime "runsc"`) {
		t.Errorf("a runtime that the engine has not: %v", err)
	}
}

// TestPruneImages removes what nobody keeps or uses.
func TestPruneImages(t *testing.T) {
	e, d := fakeEngine(t)
	d.images = map[string]int{"old": http.StatusOK, "kept": http.StatusOK, "used": http.StatusConflict, "gone": http.StatusNotFound}
	if err := e.PruneImages(within(t), time.Now(), "digest-of-kept"); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.images["old"]; ok || len(d.images) != 3 {
		t.Errorf("left: %v", d.images)
	}
	d.images["new"] = http.StatusOK
	if err := e.PruneImages(within(t), time.Unix(0, 0)); err != nil || len(d.images) != 4 {
		t.Errorf("%v; left of what is newer: %v", err, d.images)
	}
	d.images["stuck"] = http.StatusInternalServerError
	if err := e.PruneImages(within(t), time.Now()); err == nil {
		t.Error("a failed removal went unnoticed")
	}
}
