package pool

import (
	"errors"

	"paddock/internal/call"
	"paddock/internal/tenant"
	"paddock/pool/egress"
)

// openDoors returns a Config.OpenDoor over the policy proxy.
func openDoors(p *egress.Proxy) func(dir string, uid, gid uint32, id ContainerID) (Door, error) {
	return func(dir string, uid, gid uint32, id ContainerID) (Door, error) {
		d, err := p.Open(dir, uid, gid, id)
		if err != nil {
			return nil, err
		}
		return egressDoor{d}, nil
	}
}

type egressDoor struct{ *egress.Door }

// SetRules puts the rules that can be read into force and names the others.
func (d egressDoor) SetRules(t tenant.ID, p *tenant.Policy) error {
	var r egress.Rules
	var errs [3]error
	r.Allow, errs[0] = parseAll(p.Egress, egress.ParseRule)
	r.Private, errs[1] = parseAll(p.EgressPrivate, egress.ParseRule)
	r.Inject, errs[2] = parseAll(p.Inject, egress.ParseInjection)
	d.Door.SetRules(t, r)
	return errors.Join(errs[:]...)
}

// parseAll returns what can be read, and what is wrong with the rest.
func parseAll[From, To any](all []From, parse func(From) (To, error)) ([]To, error) {
	var bad error
	read := make([]To, 0, len(all))
	for _, one := range all {
		r, err := parse(one)
		if err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		read = append(read, r)
	}
	return read, bad
}

// outside gives the container's door the secrets that are added to requests outside, and returns the call as the sandbox may
// have it. No secret with the name of such a one goes in, by the policy in force or by the call's own.
func (f *flight) outside(req *call.Request) *call.Request {
	var own []tenant.Injection
	if req.Policy != nil {
		own = req.Policy.Inject
	}
	if len(f.inject) == 0 && len(own) == 0 {
		return req
	}
	f.c.door.SetSecrets(req.Outside)
	inside := *req
	inside.Withhold(f.inject)
	inside.Withhold(own)
	return &inside
}
