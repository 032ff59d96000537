package fake

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"paddock/internal/call"
)

// memoryStage is what a program sees of its call.
type memoryStage struct {
	n   *conn
	req *call.Request

	mu     sync.Mutex
	sink   call.Sink // nil once Do has returned: then nobody may touch it
	over   bool
	headed bool
}

// leave takes the sink away from a program that runs on.
func (s *memoryStage) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sink, s.over = nil, true
}

func (s *memoryStage) gone() <-chan struct{}      { return s.n.done }
func (s *memoryStage) body() []byte               { return s.req.Body }
func (s *memoryStage) secrets() map[string]string { return s.req.Secrets }

func (s *memoryStage) head(int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return context.Canceled
	case s.sink == nil:
		return thrown("the answer is a stream and nobody reads it")
	}
	s.headed = true
	return s.sink.Head(http.StatusOK, nil)
}

func (s *memoryStage) data(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return context.Canceled
	}
	return s.sink.Data(p)
}

func (s *memoryStage) log(text string) {
	line := call.LogLine{
		Call: s.req.ID, Tenant: s.req.Tenant, Container: s.n.o.Container, Level: "info", Time: time.Now(), Text: text,
	}
	if s.n.o.OnLog != nil {
		s.n.o.OnLog(line)
	}
}

func (s *memoryStage) stick() { s.n.stick(true) }

// afterwards is what goes on after the answer of a call, or of one of a pipeline's steps.
func afterwards(req *call.Request) (op, arg string, ok bool) {
	sources := [][]byte{req.Code.Source}
	for i := range req.Steps {
		sources = append(sources, req.Steps[i].Code.Source)
	}
	for _, source := range sources {
		if _, rest, found := strings.Cut(string(source), "then "); found {
			op, arg, _ = strings.Cut(rest, " ")
			return op, arg, true
		}
	}
	return "", "", false
}

func (s *memoryStage) breach() { s.n.end(errBreach) }
