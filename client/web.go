package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	pb "paddock/proto/paddock/v1"
)

// idleWebConn is how long an unused connection of Web is kept.
const idleWebConn = 90 * time.Second

// maxProblemBytes bounds what is read of a failure's document.
const maxProblemBytes = 1 << 20

// Web is an HTTP-shaped function, "name" or "name@version": requests go to it as they are and its answers come as they are,
// both streamed. Make one with Client.Web.
type Web struct {
	client   *Client
	function string
}

// Web returns a function to be talked to in HTTP.
func (c *Client) Web(function string) *Web { return &Web{client: c, function: function} }

// WebOptions are what is said to the service about a request; the function does not see them.
type WebOptions struct {
	// Timeout bounds the whole exchange, the answer's body included. 0: the tenant's usual time until the answer begins.
	Timeout time.Duration
	// Fresh answers from a container of its own.
	Fresh bool
	// Idempotent lets the service repeat it although it may have started.
	Idempotent bool
	// MinRevision makes the service wait until it has seen that revision.
	MinRevision int64
}

// Header fields between this package and the service.
const (
	fieldTimeout     = "Paddock-Timeout"
	fieldFresh       = "Paddock-Fresh"
	fieldIdempotent  = "Paddock-Idempotent"
	fieldMinRevision = "Paddock-Min-Revision"
	fieldTenant      = "Paddock-Tenant"
	fieldError       = "Paddock-Error"
	fieldStarted     = "Paddock-Started"
	fieldCallID      = "Paddock-Call-Id"
)

// Request makes a request for path, which may have a query, below the function: "/orders?open=1". The body is streamed; as with
// http.NewRequest, one that can be read again makes a request that can be repeated.
func (w *Web) Request(ctx context.Context, method, path string, body io.Reader, o WebOptions) (*http.Request, error) {
	opts := &w.client.opts
	scheme := "http"
	if opts.TLS != nil {
		scheme = "https"
	}
	where := scheme + "://" + opts.Address + "/v1/functions/" + url.PathEscape(w.function) + "/http/" + strings.TrimPrefix(path, "/")
	req, err := http.NewRequestWithContext(ctx, method, where, body)
	if err != nil {
		return nil, err
	}
	if o.Timeout > 0 {
		req.Header.Set(fieldTimeout, o.Timeout.String())
	}
	if o.Fresh {
		req.Header.Set(fieldFresh, "true")
	}
	if o.Idempotent {
		req.Header.Set(fieldIdempotent, "true")
	}
	if o.MinRevision > 0 {
		req.Header.Set(fieldMinRevision, strconv.FormatInt(o.MinRevision, 10))
	}
	return req, nil
}

// Do sends a request that Request made. What the function answers comes as it is, whatever its status, and its body must be
// closed. What fails before the answer began is an *Error; if the answer breaks off, reading its body ends in one. Redirects are not
// followed.
func (w *Web) Do(req *http.Request) (res *http.Response, err error) {
	if req.URL.Host != w.client.opts.Address {
		return nil, invalid("the request is not for this service: make it with Web.Request")
	}
	first := true
	err = w.client.repeat(req.Context(), func(context.Context) *Error {
		this, e := attempt(req, first)
		if e != nil {
			return e
		}
		first = false
		if res, e = w.client.exchange(this); e != nil {
			e.final = !bodyless(req) && req.GetBody == nil // the body is consumed
		}
		return e
	})
	return res, err
}

func bodyless(req *http.Request) bool { return req.Body == nil || req.Body == http.NoBody }

// attempt is the request as it is sent once. What it lacks is a body that net/http could send again by itself: that would be
// without regard to what has started.
func attempt(req *http.Request, first bool) (*http.Request, *Error) {
	this := req.Clone(req.Context())
	switch {
	case bodyless(req):
		this.Body, this.ContentLength = io.NopCloser(strings.NewReader("")), 0
	case !first:
		body, err := req.GetBody()
		if err != nil {
			return nil, &Error{Kind: Internal, Message: "the body could not be read again: " + err.Error(), Started: StartedNo, Err: err}
		}
		this.Body = body
	}
	this.GetBody = nil
	return this, nil
}

// exchange sends one request.
func (c *Client) exchange(req *http.Request) (*http.Response, *Error) {
	req.Header.Set("Authorization", "Bearer "+c.opts.Key)
	if c.opts.Tenant != "" {
		req.Header.Set(fieldTenant, c.opts.Tenant)
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", c.opts.UserAgent)
	}
	var left atomic.Bool
	trace := &httptrace.ClientTrace{WroteHeaders: func() { left.Store(true) }}
	res, err := c.web.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err != nil {
		return nil, errorOfWay(req.Context(), err, left.Load())
	}
	if res.Header.Get(fieldError) != "" { // no function can set it
		defer res.Body.Close()
		return nil, errorOfProblem(res)
	}
	res.Body = &answerBody{ReadCloser: res.Body, ctx: req.Context(), callID: res.Header.Get(fieldCallID)}
	return res, nil
}

// errorOfWay is the failure of a request that got no answer.
func errorOfWay(ctx context.Context, err error, left bool) *Error {
	var e *Error
	switch {
	case ctx.Err() != nil:
		e = errorOfContext(ctx, StartedMaybe)
	case left:
		e = &Error{Kind: Internal, Message: "the connection to the service was lost before the answer came: " + err.Error()}
	default:
		e = &Error{Kind: NoCapacity, Message: "the service was not reached: " + err.Error()}
	}
	e.Started = StartedMaybe
	if !left {
		e.Started = StartedNo
	}
	e.Err = err
	return e
}

// errorOfProblem reads a failure's document.
func errorOfProblem(res *http.Response) *Error {
	e := &Error{Kind: Kind(res.Header.Get(fieldError)), Started: Started(res.Header.Get(fieldStarted)),
		CallID: res.Header.Get(fieldCallID), Message: res.Status}
	if s, err := strconv.ParseInt(res.Header.Get("Retry-After"), 10, 32); err == nil {
		e.RetryAfter = time.Duration(s) * time.Second
	}
	var doc struct {
		Detail, Started, Fault, Cause string
		Thrown                        *struct {
			Name, Message, Stack, Code, Excerpt string
			StatusCode, Line, Column            int32
			Denied                              bool
		}
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxProblemBytes))
	if err != nil || json.Unmarshal(b, &doc) != nil {
		return e // an answer to HEAD has none
	}
	e.Message, e.Started, e.Fault, e.Cause = doc.Detail, Started(doc.Started), doc.Fault, doc.Cause
	if t := doc.Thrown; t != nil {
		e.Thrown = &pb.Thrown{Name: t.Name, Message: t.Message, Stack: t.Stack, Code: t.Code, Denied: t.Denied, Line: t.Line,
			Column: t.Column, Excerpt: t.Excerpt, StatusCode: t.StatusCode}
	}
	return e
}

// answerBody is the body of a function's answer: when it breaks off, it says so as every failure is said.
type answerBody struct {
	io.ReadCloser
	ctx    context.Context // of the request
	callID string
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return n, err
	}
	if b.ctx.Err() != nil {
		e := errorOfContext(b.ctx, StartedYes)
		e.CallID = b.callID
		return n, e
	}
	return n, &Error{Kind: SandboxLost, Message: "the answer broke off: " + err.Error(), Started: StartedYes, CallID: b.callID, Err: err}
}
