package router

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"unicode/utf8"

	"paddock/controller/catalog"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/metrics"
)

// smallAnswer is the size up to which a call's slot is given back before the answer is written: the kernel takes it
// without the caller's help. A larger one holds its slot, so that callers who do not read cannot pile answers up.
const smallAnswer = 64 << 10

// serveInvoke is POST /v1/functions/{name}/invoke: input JSON in, value out.
func serveInvoke(x *exchange) error {
	return x.collected(func(inv *invocation) error {
		o, err := x.queryOptions(inv.policy(), false)
		if err != nil {
			return err
		}
		inv.apply(o)
		if err := inv.setFunction(x.r.Context(), x.params[0], o.minRevision); err != nil {
			return err
		}
		body, err := x.readBody(inv.policy().InputBytes, "input", inv.req.Deadline)
		if err != nil {
			return err
		}
		inv.req.Body, err = checkInput(body, inv.policy())
		return err
	})
}

// serveRun is POST /v1/run: source text as the body, or JSON with source and input.
func serveRun(x *exchange) error {
	return x.collected(func(inv *invocation) error {
		o, err := x.queryOptions(inv.policy(), true)
		if err != nil {
			return err
		}
		inv.apply(o)
		var source, input []byte
		switch x.contentType() {
		case "application/json":
			source, input, err = x.readRunJSON(inv, &o)
		case "application/javascript", "text/javascript", "application/ecmascript", "text/ecmascript",
			"application/x-javascript", "text/plain":
			input = []byte(o.input)
			source, err = x.readBody(inv.policy().SourceBytes, "source", inv.req.Deadline)
		default:
			err = withStatus(http.StatusUnsupportedMediaType, errs.New(errs.Invalid, "Content-Type %.80q: send "+
				"application/javascript with source text, or application/json with {\"source\": …, \"input\": …}",
				x.header("Content-Type")))
		}
		if err != nil {
			return err
		}
		return inv.setSource(x.r.Context(), source, input, o)
	})
}

// runBody is the JSON form of POST /v1/run. What stands here goes over the query.
type runBody struct {
	Source     *string         `json:"source"`
	Input      json.RawMessage `json:"input"`
	Timeout    string          `json:"timeout"`
	Kind       string          `json:"kind"`
	Name       string          `json:"name"`
	Runtime    string          `json:"runtime"`
	Fresh      *bool           `json:"fresh"`
	Idempotent *bool           `json:"idempotent"`
	// Configuration is laid over the tenant's secrets.
	Configuration map[string]string `json:"configuration"`
	// Function is whose draft it is: its own secrets come along.
	Function string `json:"function"`
}

func (x *exchange) readRunJSON(inv *invocation, o *options) (source, input []byte, err error) {
	p := inv.policy()
	// Source text grows when it is written as a JSON string, sixfold at worst; doubled is what real text stays below.
	body, err := x.readBody(2*p.SourceBytes+p.InputBytes+4096, "request", inv.req.Deadline)
	if err != nil {
		return nil, nil, err
	}
	if !utf8.Valid(body) { // the decoder would replace what is not
		return nil, nil, errs.New(errs.Invalid, "the request is not UTF-8 (byte %d)", firstNotUTF8(body))
	}
	var b runBody
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return nil, nil, errs.New(errs.Invalid, "the request is not JSON of the form {\"source\": …, \"input\": …, \"timeout\": "+
			"\"3s\"}: %s", complaint(err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, nil, errs.New(errs.Invalid, "the request has something behind its JSON")
	}
	if b.Source == nil {
		return nil, nil, errs.New(errs.Invalid, "the request has no \"source\": send JavaScript text in it")
	}
	if err := b.over(o, inv); err != nil {
		return nil, nil, err
	}
	return []byte(*b.Source), b.Input, nil
}

func (b *runBody) over(o *options, inv *invocation) (err error) {
	if b.Timeout != "" {
		if o.timeout, err = parseTimeout(b.Timeout, inv.policy()); err != nil {
			return err
		}
	}
	if b.Kind != "" {
		if o.kind, err = parseKind(b.Kind); err != nil {
			return err
		}
	}
	if b.Name != "" {
		o.name = b.Name
	}
	if b.Runtime != "" {
		o.runtime = b.Runtime
	}
	o.configuration, o.function = b.Configuration, b.Function
	if b.Fresh != nil {
		o.fresh = *b.Fresh
	}
	if b.Idempotent != nil {
		o.idempotent = *b.Idempotent
	}
	inv.apply(*o)
	return nil
}

// setSource points the call at source text. It gets the secrets that all functions get if who sends it might as well deploy
// it: to others, who may only call, it would show them.
func (inv *invocation) setSource(ctx context.Context, source, input []byte, o options) (err error) {
	if err := checkSource(source, inv.policy()); err != nil {
		return err
	}
	name, err := checkSourceName(o.name)
	if err != nil {
		return err
	}
	if err := inv.setRuntime(o.runtime); err != nil {
		return err
	}
	if o.kind == "" {
		o.kind = call.KindAuto
	}
	if o.function != "" {
		if err := catalog.CheckFunctionName(o.function); err != nil {
			return err
		}
	}
	inv.req.Code = sourceCode(source, o.kind, name)
	if inv.req.Body, err = checkInput(input, inv.policy()); err != nil {
		return err
	}
	if inv.role.Includes(identity.RoleDeploy) {
		if err := inv.setSecrets(ctx, o.function); err != nil {
			return err
		}
	}
	return inv.overlay(o.configuration)
}

// collected admits a call, lets prepare fill it, runs it and answers with the whole of what it yields.
func (x *exchange) collected(prepare func(*invocation) error) (err error) {
	inv, err := x.admit(metrics.HTTP)
	if err != nil {
		return err
	}
	ctx := x.r.Context()
	var res *call.Result
	outcome := error(errAbandoned)
	defer func() { inv.finish(ctx, res, outcome) }()
	if outcome = prepare(inv); outcome != nil {
		return outcome
	}
	sink := &collector{limit: inv.policy().OutputBytes}
	res, outcome = inv.invoke(ctx, sink, sink.untouched)
	outcome = sink.close(outcome)
	if outcome != nil {
		x.resultHeaders(res)
		return outcome
	}
	if !sink.headed && len(res.Value) <= smallAnswer || sink.headed && len(sink.body) <= smallAnswer {
		inv.finish(ctx, res, nil)
	}
	if sink.headed {
		x.replay(res, sink)
	} else {
		x.answer(res)
	}
	return nil
}

// admit admits the request's call and gives it its trace.
func (x *exchange) admit(tr metrics.Transport) (*invocation, error) {
	if err := x.takePublicRate(); err != nil {
		return nil, err
	}
	inv, err := x.router.admit(x.r.Context(), x.id, x.who, tr, x.began)
	if err != nil {
		return nil, err
	}
	inv.trace = x.router.tracer.start(x.r.Context(), inv, headerCarrier(x.r.Header))
	return inv, nil
}
