package router

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/metrics"
)

// serveHTTPShaped is ANY /v1/functions/{name}/http/{path…}: the request goes to the function as it comes, the answer to
// the caller as it comes. The query is the function's own, so options are header fields here.
//
// Time: an explicit limit bounds the whole exchange. Without one the head must come within the tenant's call timeout and
// after that the stream may last up to the tenant's maximum, as long as something moves at least every StreamIdle.
func serveHTTPShaped(x *exchange) error {
	inv, err := x.admit(metrics.HTTPStream)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(x.r.Context())
	defer cancel(nil)
	var res *call.Result
	outcome := error(errAbandoned)
	defer func() { inv.finish(ctx, res, outcome) }()
	headBy, outcome := x.prepareStream(inv)
	if outcome != nil {
		return outcome
	}
	s := newStream(x, inv, cancel, headBy)
	defer s.close()
	if outcome = s.attachBody(inv); outcome != nil {
		return outcome
	}
	res, outcome = inv.invoke(ctx, s, s.untouched)
	outcome = s.end(ctx, res, outcome)
	return outcome
}

// prepareStream fills the call in and returns by when the head must come.
func (x *exchange) prepareStream(inv *invocation) (headBy time.Time, err error) {
	p := inv.policy()
	o, err := x.headerOptions(p)
	if err != nil {
		return headBy, err
	}
	headBy = inv.began.Add(p.Timeout)
	if o.timeout == 0 {
		o.timeout = p.MaxTimeout
	} else {
		headBy = inv.began.Add(o.timeout)
	}
	inv.apply(o)
	if err := inv.setFunction(x.r.Context(), x.params[0], o.minRevision); err != nil {
		return headBy, err
	}
	inv.req.Via = call.ViaHTTP
	inv.req.HTTP = &call.HTTPHead{
		Method: x.r.Method, URL: functionURL(x.params[1], x.r.URL), Headers: inv.trace.inject(x.requestHeaders()),
	}
	return headBy, nil
}

// functionURL is the path behind the function's name, still escaped, with the query.
func functionURL(rest string, u *url.URL) string {
	var b strings.Builder
	b.Grow(len(rest) + len(u.RawQuery) + 2)
	b.WriteByte('/')
	b.WriteString(rest)
	if u.RawQuery != "" || u.ForceQuery {
		b.WriteByte('?')
		b.WriteString(u.RawQuery)
	}
	return b.String()
}

// Reasons for which a stream is cancelled by the router itself.
var (
	errHeadLate   = errors.New("no answer in time")
	errStreamIdle = errors.New("nothing moved")
)

// end turns what the node said into the exchange's outcome and, where the head has gone, into an answer that is whole or
// visibly cut.
func (s *stream) end(ctx context.Context, res *call.Result, err error) error {
	s.close()
	x := s.x
	switch cause := context.Cause(ctx); {
	case s.refused != nil:
		err = s.refused
	case err == nil:
	case errors.Is(cause, errHeadLate):
		err = &errs.Error{Kind: errs.Timeout, Message: "the function did not begin to answer in time: answer earlier, or ask for " +
			"more time with Paddock-Timeout"}
	case errors.Is(cause, errStreamIdle):
		err = &errs.Error{Kind: errs.Timeout, Message: "nothing moved on the stream for " + x.router.cfg.StreamIdle.String()}
	}
	if !s.headed {
		s.closeUnlessRead()
	}
	switch {
	case err != nil:
		if !s.headed {
			x.resultHeaders(res)
		}
		return err
	case !s.headed:
		x.answer(res) // a function of another shape: its value is the answer
	default:
		x.resultTrailers(res)
	}
	s.discard()
	return nil
}
