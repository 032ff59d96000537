package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"paddock/cmd/paddock/project"
)

// caseServer answers as the case that is running says. A nil one serves nothing.
type caseServer struct {
	server *http.Server
	url    string

	mu      sync.Mutex
	replies map[string]project.Reply
	wrong   []string
}

func newCaseServer(addr string) (*caseServer, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, usageError("--serve %s: %w", addr, err)
	}
	s := &caseServer{url: "http://" + l.Addr().String()}
	s.server = &http.Server{Handler: http.HandlerFunc(s.answer), ReadHeaderTimeout: 5 * time.Second}
	go s.server.Serve(l)
	return s, nil
}

func (s *caseServer) close() {
	if s != nil {
		s.server.Close()
	}
}

func (s *caseServer) fill(text string) string {
	if s == nil {
		return text
	}
	return strings.ReplaceAll(text, "${serve}", s.url)
}

func (s *caseServer) play(replies map[string]project.Reply) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replies, s.wrong = replies, nil
}

func (s *caseServer) complaints() []string {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrong
}

func (s *caseServer) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	asked := r.Method + " " + r.URL.RequestURI()
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.replies[asked]
	if !ok {
		s.wrong = append(s.wrong, fmt.Sprintf("it asked for %q, which \"serve\" does not have", asked))
		http.Error(w, "not in this case", http.StatusNotImplemented)
		return
	}
	for name, value := range a.Headers {
		if got := r.Header.Get(name); got != value {
			s.wrong = append(s.wrong, fmt.Sprintf("%s: header %s is %q, not %q", asked, name, got, value))
		}
	}
	if a.Body != nil {
		if diff := diffJSON(a.Body, body); diff != "" || err != nil {
			s.wrong = append(s.wrong, fmt.Sprintf("%s: the request's body: %v%s", asked, err, diff))
		}
	}
	if a.JSON != nil {
		w.Header().Set("Content-Type", "application/json")
		a.Text = string(a.JSON)
	}
	if a.Status == 0 {
		a.Status = http.StatusOK
	}
	w.WriteHeader(a.Status)
	_, _ = io.WriteString(w, a.Text)
}
