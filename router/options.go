package router

import (
	"net/url"
	"time"

	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/tenant"
)

// options are what a caller may say about a call besides its target and input.
type options struct {
	timeout       time.Duration // 0 = the tenant's default
	fresh         bool
	idempotent    bool
	kind          call.Kind // run only
	name          string    // run only
	runtime       string    // run only
	input         string    // run with raw source only
	minRevision   int64
	configuration map[string]string // run only: laid over the secrets
	function      string            // run only: whose secrets it gets, "" = only the tenant's
}

// headerOptions reads the options that any call may carry as header fields; the only way where the query is the
// function's own.
func (x *exchange) headerOptions(p *tenant.Policy) (o options, err error) {
	if x.keyless != nil { // options are for those who are known: a stranger does not choose what a call may cost
		return o, nil
	}
	if o.timeout, err = parseTimeout(x.header(hTimeout), p); err != nil {
		return o, err
	}
	if o.fresh, err = parseFlag("fresh", x.header(hFresh)); err != nil {
		return o, err
	}
	if o.idempotent, err = parseFlag("idempotent", x.header(hIdempotent)); err != nil {
		return o, err
	}
	o.minRevision, err = parseRevision("min_revision", x.header(hMinRevision))
	return o, err
}

// queryOptions reads the query over the header fields. A parameter that nobody reads is refused, so that a slip of the
// pen does not become a default.
func (x *exchange) queryOptions(p *tenant.Policy, run bool) (options, error) {
	o, err := x.headerOptions(p)
	if err != nil || x.r.URL.RawQuery == "" {
		return o, err
	}
	if x.keyless != nil {
		return o, errs.New(errs.Invalid, "without an API key a call has no options: take the query away")
	}
	query, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return o, errs.New(errs.Invalid, "the query string cannot be read: escape its values")
	}
	for name, values := range query {
		if len(values) != 1 {
			return o, errs.New(errs.Invalid, "query parameter %.40q stands %d times", name, len(values))
		}
		if err := o.set(name, values[0], p, run); err != nil {
			return o, err
		}
	}
	return o, nil
}

func (o *options) set(name, value string, p *tenant.Policy, run bool) (err error) {
	switch name {
	case "timeout":
		if value == "" {
			return errs.New(errs.Invalid, "timeout is empty: use a duration such as 3s")
		}
		o.timeout, err = parseTimeout(value, p)
		return err
	case "fresh":
		o.fresh, err = parseFlag(name, value)
		return err
	case "idempotent":
		o.idempotent, err = parseFlag(name, value)
		return err
	case "min_revision":
		o.minRevision, err = parseRevision("min_revision", value)
		return err
	}
	if run {
		switch name {
		case "kind":
			o.kind, err = parseKind(value)
			return err
		case "name":
			o.name = value
			return nil
		case "runtime":
			o.runtime = value
			return nil
		case "input":
			o.input = value
			return nil
		}
		return errs.New(errs.Invalid, "there is no query parameter %.40q: use timeout, fresh, idempotent, kind, name, runtime, "+
			"input or min_revision", name)
	}
	return errs.New(errs.Invalid, "there is no query parameter %.40q: use timeout, fresh, idempotent or min_revision", name)
}

// apply puts the options into the call.
func (inv *invocation) apply(o options) {
	inv.deadline(o.timeout)
	inv.req.Fresh, inv.req.Idempotent = o.fresh, o.idempotent
}
