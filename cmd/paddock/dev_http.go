package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"paddock/cmd/paddock/project"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

// maxDevBody bounds a request's body; what is too large for the tenant the service refuses.
const maxDevBody = 32 << 20

// listen starts the endpoint and returns what stops it. It asks for no key, so it listens on this machine alone.
func (d *dev) listen(ctx context.Context) (stop func(), err error) {
	l, err := net.Listen("tcp", d.flags.listen)
	if err != nil {
		return nil, usageError("--listen %s: %w", d.flags.listen, err)
	}
	if at, ok := l.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
		l.Close()
		return nil, usageError("--listen %s: this endpoint asks for no key, so it listens on this machine alone: use 127.0.0.1:PORT", d.flags.listen)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/functions/{name}/invoke", d.serve(func(u project.Unit, name string) bool {
		return !project.IsManifest(u.Path) && u.Name == name
	}))
	mux.HandleFunc("POST /v1/pipelines/{name}/invoke", d.serve(func(u project.Unit, name string) bool {
		if !project.IsManifest(u.Path) {
			return false
		}
		m, err := project.ReadManifest(u.Path)
		return err == nil && m.Name == name
	}))
	server := &http.Server{
		Handler: onlyLocal(mux), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
	}
	go server.Serve(l)
	fmt.Fprintf(d.app.stdout, "answering on http://%s\n", l.Addr())
	return func() { server.Close() }, nil
}

// onlyLocal refuses what a page of somebody else's in the author's browser could ask for: requests by another name than this
// machine's, and those that say where they come from.
func onlyLocal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) || r.Header.Get("Origin") != "" {
			devProblem(w, errs.New(errs.Denied, "this endpoint answers programs of this machine, not web pages"), "")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// serve answers with what one of the folder's units makes of the body, as it stands on disk now.
func (d *dev) serve(is func(u project.Unit, name string) bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		resp, err := d.answer(w, r, is)
		outcome := "ok"
		switch {
		case err != nil:
			failure := asFailure(err)
			devProblem(w, failure, "")
			outcome = failure.Message
		case resp.GetError() != nil:
			e := resp.GetError()
			devProblem(w, failureOf(e), resp.GetCallId())
			outcome = e.GetKind()
		default:
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Paddock-Call-Id", resp.GetCallId())
			_, _ = w.Write(resp.GetOutput())
		}
		text := fmt.Sprintf("%s  POST %s: %s\n", clock(), r.URL.Path, d.app.safeText(outcome))
		if resp != nil {
			text += d.app.outcomeText(resp) + "\n"
		}
		fmt.Fprint(d.app.stdout, text)
	}
}

func (d *dev) answer(w http.ResponseWriter, r *http.Request, is func(u project.Unit, name string) bool) (*pb.InvokeResponse, error) {
	input, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDevBody))
	if err != nil {
		return nil, errs.New(errs.Invalid, "the body: %v", err)
	}
	timeout := time.Duration(0)
	if text := r.URL.Query().Get("timeout"); text != "" {
		if timeout, err = time.ParseDuration(text); err != nil || timeout <= 0 {
			return nil, errs.New(errs.Invalid, "timeout %.40q: use a time with its unit, for example 3s", text)
		}
	}
	folder, err := project.Scan(d.path)
	if err != nil {
		return nil, err
	}
	for _, u := range folder.Units {
		if !is(u, r.PathValue("name")) {
			continue
		}
		draft, err := readDraft(u.Path)
		if err != nil {
			return nil, errs.New(errs.LoadError, "%v", err)
		}
		return d.exchange(r.Context(), draft, input, timeout)
	}
	return nil, errs.New(errs.NotFound, "there is no %.80q in %s", r.PathValue("name"), d.path)
}

// asFailure is an error of this side, or of the way to the service, as the service would say it.
func asFailure(err error) *errs.Error {
	var known *errs.Error
	if errors.As(err, &known) {
		return known
	}
	c := classify(err)
	kind := errs.Internal
	if c.code == exitUsage {
		kind = errs.Invalid
	}
	return errs.New(kind, "%s", c.Error())
}

func failureOf(e *pb.CallError) *errs.Error {
	f := &errs.Error{
		Kind: errs.Kind(e.GetKind()), Message: e.GetMessage(), Started: errs.Started(e.GetStarted()), Fault: errs.Fault(e.GetFault()),
		Cause: e.GetCause(), RetryAfter: e.GetRetryAfter().AsDuration(),
	}
	if th := e.GetThrown(); th != nil {
		f.Thrown = &errs.Thrown{
			Name: th.GetName(), Message: th.GetMessage(), Stack: th.GetStack(), Code: th.GetCode(), Denied: th.GetDenied(),
			Line: int(th.GetLine()), Column: int(th.GetColumn()), Excerpt: th.GetExcerpt(),
		}
	}
	return f
}

// devProblem answers with a failure in the service's form.
func devProblem(w http.ResponseWriter, e *errs.Error, call string) {
	started := e.WhetherStarted()
	if started == errs.StartedYes {
		started = errs.StartedMaybe
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Paddock-Error", string(e.Kind))
	w.Header().Set("Paddock-Started", string(started))
	w.WriteHeader(e.HTTPStatus())
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(map[string]any{
		"type": "urn:paddock:error:" + string(e.Kind), "title": errs.Lookup(e.Kind).Title, "status": e.HTTPStatus(), "detail": e.Message,
		"kind": e.Kind, "started": e.WhetherStarted(), "fault": e.WhoseFault(), "cause": e.Cause, "callId": call, "thrown": e.Thrown,
	})
}
