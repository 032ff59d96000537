package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// RunRequest asks the keeper to start a container: Argv is a runtime command that detaches and writes the first process's
// pid into PidFile.
type RunRequest struct {
	ID      string
	Argv    []string
	PidFile string
	Timeout time.Duration
	// OOMScoreAdj is that of the command and of all that it starts.
	OOMScoreAdj int
}

// RunReply is how the command ended. Code 0 is success.
type RunReply struct {
	Code, Signal int
	TimedOut     bool
	Status       Status
}

var idForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// routes is the keeper's whole interface: JSON over HTTP, on a socket that only root reaches.
func (k *keeper) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /run", k.run)
	mux.HandleFunc("GET /events", k.events)
	mux.HandleFunc("GET /output/{id}", k.output)
	mux.HandleFunc("POST /forget/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !idForm.MatchString(r.PathValue("id")) {
			http.Error(w, "not a container id", http.StatusBadRequest)
			return
		}
		reply(w, struct{}{}, k.forget(r.Context(), r.PathValue("id")))
	})
	mux.HandleFunc("POST /leave", func(w http.ResponseWriter, _ *http.Request) {
		k.mu.Lock()
		k.left = true
		k.mu.Unlock()
		reply(w, k.idle(), nil)
	})
	return mux
}

func reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the engine went away: nothing to tell it
}

func (k *keeper) run(w http.ResponseWriter, r *http.Request) {
	var q RunRequest
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || !idForm.MatchString(q.ID) || len(q.Argv) == 0 || q.Timeout <= 0 {
		http.Error(w, fmt.Sprintf("not a run request: %v", err), http.StatusBadRequest)
		return
	}
	// not the request's context: a start that has begun is finished, or ended at its own deadline, whoever waits for it
	ctx, cancel := context.WithTimeout(context.Background(), q.Timeout)
	defer cancel()
	c, err := k.enter(q.ID, cancel)
	if errors.Is(err, os.ErrExist) {
		http.Error(w, "container "+q.ID+" exists, or did", http.StatusConflict)
		return
	}
	if err != nil {
		reply(w, nil, err)
		return
	}
	answer, err := k.start(ctx, c, q)
	reply(w, answer, err)
}

// enter makes the record of a container that is about to start.
func (k *keeper) enter(id string, abort context.CancelFunc) (*container, error) {
	k.mu.Lock()
	twice := k.usedLocked(id)
	k.mu.Unlock()
	if twice {
		return nil, os.ErrExist
	}
	out, err := openOutput(k.fifoPath(id))
	if err != nil {
		return nil, err
	}
	c := &container{
		status: Status{ID: id}, out: out, exited: make(chan struct{}), abort: abort, made: make(chan struct{}),
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.usedLocked(id) {
		_, current := k.known[id]
		go func() { // it waits for its reader: not under the lock
			out.close()
			if !current {
				os.Remove(k.fifoPath(id))
			}
		}()
		return nil, os.ErrExist
	}
	k.known[id] = c
	return c, nil
}

func (k *keeper) usedLocked(id string) bool {
	_, now := k.known[id]
	return now || k.forgotten.Contains(id)
}

// start runs the runtime's command. A failure leaves the container known and ended, with what it printed.
func (k *keeper) start(ctx context.Context, c *container, q RunRequest) (RunReply, error) {
	defer close(c.made)
	stdio, closeAll, err := k.stdio(q.ID)
	if err != nil {
		k.ended(c, nil)
		return RunReply{}, err
	}
	defer closeAll()
	var answer RunReply
	err = k.reaper.command(ctx, q.Argv, stdio, q.OOMScoreAdj, func(status syscall.WaitStatus) error {
		answer.Code = status.ExitStatus()
		if status.Signaled() {
			answer.Signal = int(status.Signal())
		}
		if answer.Code != 0 {
			return nil
		}
		pid, err := readPid(q.PidFile)
		if err != nil {
			return err
		}
		return k.started(c, pid)
	})
	if errors.Is(err, errTimeout) {
		answer.TimedOut, err = true, nil
	}
	k.mu.Lock()
	begun := c.status.PID != 0
	k.mu.Unlock()
	if !begun {
		k.ended(c, nil)
	}
	k.mu.Lock()
	answer.Status = c.status
	k.mu.Unlock()
	return answer, err
}

// stdio opens what the container gets: no input, and the FIFO as output, opened for writing and reading, so that the
// keeper's death is no event for it.
func (k *keeper) stdio(id string) ([3]*os.File, func(), error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return [3]*os.File{}, nil, err
	}
	// a description of its own: without O_NONBLOCK, which is the reader's alone
	fifo, err := os.OpenFile(k.fifoPath(id), os.O_RDWR, 0)
	if err != nil {
		null.Close()
		return [3]*os.File{}, nil, err
	}
	return [3]*os.File{null, fifo, fifo}, func() { null.Close(); fifo.Close() }, nil
}

func readPid(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read the container's pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("read the container's pid: %q", text)
	}
	return pid, nil
}

// events streams JSON lines: first what is known, then an empty Status, then changes, until the engine goes away.
func (k *keeper) events(w http.ResponseWriter, r *http.Request) {
	changes := make(chan Status, 1024)
	k.mu.Lock()
	k.engines++
	k.left = false
	k.watchers[changes] = struct{}{}
	var now []Status
	for _, c := range k.known {
		if c.status.PID != 0 || c.status.Exited {
			now = append(now, c.status)
		}
	}
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.watchers, changes)
		k.engines--
		k.mu.Unlock()
		select {
		case k.leave <- struct{}{}:
		default:
		}
	}()
	enc := json.NewEncoder(w)
	for _, s := range append(now, Status{}) {
		if enc.Encode(s) != nil {
			return
		}
	}
	flush := http.NewResponseController(w)
	for flush.Flush() == nil {
		select {
		case <-r.Context().Done():
			return
		case s, ok := <-changes:
			if !ok || enc.Encode(s) != nil {
				return
			}
		}
	}
}

func (k *keeper) output(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	c := k.known[r.PathValue("id")]
	k.mu.Unlock()
	if c == nil {
		http.Error(w, "no such container", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(c.out.bytes())
}
