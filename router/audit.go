package router

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"paddock/internal/audit"
	"paddock/internal/call"
	"paddock/internal/errs"
	"paddock/internal/identity"
)

// auditRule says what of a route the audit log takes. Denials go there from every route. Calls never do.
type auditRule uint8

const (
	// auditWrites: that it is about to be done, before, and how it ended, after. What the table says nothing of is such.
	auditWrites auditRule = iota
	// auditReads: an operator who reads what is a tenant's.
	auditReads
	// auditAlways: that it was read, by whomever.
	auditAlways
	// auditNothing: it changes nothing and shows nothing of a tenant's.
	auditNothing
)

// auditTime bounds the wait for a line after the request's own time: what was done is written down although the caller
// went away.
const auditTime = 10 * time.Second

// record is one request on its way into the audit log; nil where it does not go there.
type record struct {
	router *Router
	event  audit.Event
	begun  bool
}

// actionOf is the name of a route in the audit log: "Keys.CreateKey", or the HTTP pattern of a call.
func actionOf(ru *rule) string {
	if name, ok := strings.CutPrefix(ru.rpc, "/paddock.v1."); ok {
		return strings.ReplaceAll(name, "/", ".")
	}
	if ru.rpc != "" {
		return strings.TrimPrefix(ru.rpc, "/")
	}
	return ru.http
}

func requestEvent(ru *rule, who *identity.Identity, source string, id call.ID) audit.Event {
	return audit.Event{
		Key: who.KeyID, Role: string(who.Role), Source: host(source), Tenant: string(who.Tenant), Action: actionOf(ru),
		Call: string(id),
	}
}

// host is an address without its port, which says nothing.
func host(remote string) string {
	if h, _, err := net.SplitHostPort(remote); err == nil {
		return h
	}
	return remote
}

// auditDenied writes down, within bounds per source, that a request was turned away and why.
func (r *Router) auditDenied(ru *rule, who *identity.Identity, source string, id call.ID, why string, err error) {
	if r.denials == nil {
		return
	}
	e := requestEvent(ru, who, source, id)
	e.Decision, e.Result, e.Detail = audit.Deny, string(errs.KindOf(err)), map[string]string{"why": why}
	r.denials.Note(e.Source, e)
}

// auditBegin writes down what is about to be done, and refuses it where that cannot be. The result, if not nil, must be
// told how it ended. message is the request, nil if there is none.
func (r *Router) auditBegin(ctx context.Context, ru *rule, who *identity.Identity, source string, id call.ID,
	message any) (*record, error) {
	if r.cfg.Audit == nil || ru.call || ru.role == public || ru.audit == auditNothing ||
		ru.audit == auditReads && who.Role != identity.RoleOperator {
		return nil, nil
	}
	a := &record{router: r, event: requestEvent(ru, who, source, id)}
	a.event.Decision = audit.Allow
	a.describe(message)
	if ru.audit != auditWrites {
		return a, nil
	}
	if err := r.cfg.Audit.Begin(ctx, a.event); err != nil {
		return nil, auditFault(ctx, err)
	}
	a.begun = true
	return a, nil
}

// auditFault is what the caller hears when the audit log takes no line. Nothing was done.
func auditFault(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil && !errors.Is(err, audit.ErrUnavailable) {
		return errs.Wrap(errs.Cancelled, "audit", err, "the request ended before it was written down: nothing was done")
	}
	e := errs.Wrap(errs.NoCapacity, "audit", err,
		"the audit log cannot be written: nothing was done. Calls go on; changes have to wait until the operator has made room")
	e.RetryAfter = time.Second
	return e
}

// opened writes down that something that lasts has begun.
func (a *record) opened() {
	if a == nil || a.begun {
		return
	}
	e := a.event
	e.Result = audit.Begun
	a.router.cfg.Audit.Note(e)
}

// end writes down how it ended and returns what the caller is told: err, unless a change could not be written down.
func (a *record) end(ctx context.Context, answer any, err error) error {
	if a == nil {
		return err
	}
	if a.event.Result = audit.OK; err != nil {
		err = fromService(err)
		a.event.Result = string(errs.KindOf(err))
		if errs.Is(err, errs.Denied) || errs.Is(err, errs.Unauthenticated) {
			a.event.Decision = audit.Deny
		}
	} else {
		a.describeAnswer(answer)
	}
	if !a.begun {
		a.router.cfg.Audit.Note(a.event)
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	failed := a.router.cfg.Audit.Write(ctx, a.event)
	if failed == nil {
		return err
	}
	a.router.log.LogAttrs(ctx, slog.LevelError, "the end of a change is not in the audit log", slog.String("action", a.event.Action),
		slog.String("call", a.event.Call), slog.String("err", failed.Error()))
	if err != nil {
		return err
	}
	e := errs.Wrap(errs.NoCapacity, "audit", failed,
		"the change was made, and the audit log could not take it: look at what there is before you try again")
	e.Started = errs.StartedMaybe
	return e
}

// What of messages is written down: names and settings, by field. Anything else a message holds (source, secrets, notes)
// stays out, and so does every field that is added, until it is listed.
var (
	auditedObjects = []protoreflect.Name{"id", "name", "container", "node"}
	auditedDetails = []protoreflect.Name{"tenant", "role", "owner", "scopes", "ttl", "kind", "runtime", "function", "policy", "resume",
		"all", "min_ready", "max_ready", "max_containers", "action", "access", "new_url_key", "image", "canary_percent", "drain", "gate"}
	auditedAnswers = []protoreflect.Name{"version", "hash", "revision", "containers", "keys", "functions", "state"}
)

// describe adds what a request is about.
func (a *record) describe(message any) {
	m, ok := message.(proto.Message)
	if !ok {
		return
	}
	for _, name := range auditedObjects {
		if text := fieldText(m, name); text != "" {
			a.event.Object = text
			break
		}
	}
	for _, name := range auditedDetails {
		a.detail(name, fieldText(m, name))
	}
	if t := a.event.Detail["tenant"]; t != "" && a.event.Tenant == "" {
		a.event.Tenant = t
		delete(a.event.Detail, "tenant")
	}
}

// describeAnswer adds what came of it.
func (a *record) describeAnswer(answer any) {
	m, ok := answer.(proto.Message)
	if !ok {
		return
	}
	if key := m.ProtoReflect().Descriptor().Fields().ByName("key"); key != nil && key.Message() != nil && !key.IsList() {
		a.detail("key", fieldText(m.ProtoReflect().Get(key).Message().Interface(), "id"))
	}
	for _, name := range auditedAnswers {
		if f := m.ProtoReflect().Descriptor().Fields().ByName(name); f != nil && f.Message() == nil { // a number, not all of a version
			a.detail(name, fieldText(m, name))
		}
	}
}

func (a *record) detail(name protoreflect.Name, text string) {
	if text == "" {
		return
	}
	if a.event.Detail == nil {
		a.event.Detail = map[string]string{}
	}
	a.event.Detail[string(name)] = text
}

// fieldText is a field as text, "" if m has no such field or it is not set.
func fieldText(m proto.Message, name protoreflect.Name) string {
	r := m.ProtoReflect()
	f := r.Descriptor().Fields().ByName(name)
	if f == nil || !r.Has(f) {
		return ""
	}
	v := r.Get(f)
	switch {
	case f.IsMap():
		return ""
	case f.IsList():
		if f.Kind() != protoreflect.StringKind {
			return ""
		}
		var all []string
		for i := range v.List().Len() {
			all = append(all, v.List().Get(i).String())
		}
		return strings.Join(all, " ")
	case f.Message() != nil:
		text, err := protojson.Marshal(v.Message().Interface())
		if err != nil {
			return "?"
		}
		return string(text)
	case f.Kind() == protoreflect.BytesKind:
		return ""
	}
	return v.String()
}
