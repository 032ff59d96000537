package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"paddock/internal/audit"
	"paddock/pool/egress"
)

// openAudit opens the record of who did what. It is closed last of all that writes to it.
func (s *service) openAudit(context.Context) error {
	log, err := audit.Open(audit.Options{Dir: s.data.Audit(), Logger: s.log.With("part", "audit")})
	if err != nil {
		return err
	}
	s.audit.log, s.audit.events = log, audit.NewSampler(log, "events.dropped")
	s.onStop("audit log", func(_ context.Context, remove bool) error {
		s.audit.events.Close()
		log.Note(audit.Event{Action: "service.stop", Object: s.data.ID, Result: audit.OK, Detail: map[string]string{
			"leaves_sandboxes": strconv.FormatBool(!remove), "signal": s.audit.signal,
		}})
		return log.Close()
	})
	return nil
}

// auditPart is who did what.
type auditPart struct {
	log    *audit.Log
	events *audit.Sampler // what sandboxes cause
	signal string         // that ended the service
}

// auditStart writes down that the service serves, and with what it goes on.
func (s *service) auditStart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	st := s.node.controller.Stats()
	err := s.audit.log.Write(ctx, audit.Event{Action: "service.start", Object: s.data.ID, Result: audit.OK, Detail: map[string]string{
		"version": release(), "pid": strconv.Itoa(os.Getpid()), "engine": s.node.engine.Name(), "isolation": string(s.node.engine.Isolation()),
		"image": s.node.image.Digest, "adopted": strconv.FormatUint(st.Adopted, 10),
	}})
	if err != nil {
		s.log.Error("the start is not in the audit log; calls are served, changes are refused until it can be written", "err", err)
	}
	return nil
}

// egressAudit writes down what may leave a sandbox and what may not.
type egressAudit struct{ to *audit.Sampler }

// Decided implements egress.Observer.
func (a egressAudit) Decided(d egress.Decision) {
	e := audit.Event{
		Tenant: string(d.Tenant), Action: "egress." + string(d.Event), Object: fmt.Sprintf("%s:%d", d.Host, d.Port),
		Decision: audit.Allow, Call: string(d.Call), Dropped: d.Dropped, Detail: map[string]string{"container": string(d.Container)},
	}
	switch d.Event {
	case egress.EventDenied:
		e.Decision, e.Detail["reason"] = audit.Deny, string(d.Reason)
	case egress.EventDropped:
		e.Decision, e.Object = "", ""
	case egress.EventClosed:
		e.Detail["sent"], e.Detail["received"] = strconv.FormatInt(d.BytesOut, 10), strconv.FormatInt(d.BytesIn, 10)
	}
	if d.Addr.IsValid() {
		e.Detail["address"] = d.Addr.String()
	}
	a.to.Note(e.Action+" "+e.Tenant, e)
}

// observers tells several.
type observers []egress.Observer

// Decided implements egress.Observer.
func (all observers) Decided(d egress.Decision) {
	for _, o := range all {
		o.Decided(d)
	}
}

// useSaveEvery is how often it is looked which keys were used.
const useSaveEvery = time.Minute

// keyUser stores when keys were last used.
type keyUser interface {
	SaveKeyUse(ctx context.Context) error
}

// startKeyUse stores now and then, and at the end, when keys were last used.
func (s *service) startKeyUse(keys keyUser) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(useSaveEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := keys.SaveKeyUse(ctx); err != nil && ctx.Err() == nil {
				s.log.Debug("when keys were used was not stored", "err", err)
			}
		}
	}()
	s.onStop("use of keys", func(context.Context, bool) error { cancel(); <-done; return nil })
}
