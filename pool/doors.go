package pool

import (
	"errors"
	"maps"
	"slices"
	"strings"

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

// outside returns the call as the sandbox of c may have it: without the secrets that are added to its requests outside, which
// go to its door instead. Both the policy in force and the call's own say which those are.
func (p *Pool) outside(c *container, req *call.Request) *call.Request {
	p.mu.Lock()
	inForce := c.tenant.policy.Inject
	p.mu.Unlock()
	var own []tenant.Injection
	if req.Policy != nil {
		own = req.Policy.Inject
	}
	if len(inForce) == 0 && len(own) == 0 {
		return req
	}
	kept, held := maps.Clone(req.Secrets), map[string]string{}
	for _, in := range slices.Concat(inForce, own) {
		if value, ok := req.Secrets[in.Secret]; ok {
			held[in.Secret] = value
			delete(kept, in.Secret)
		}
	}
	c.door.SetSecrets(held)
	inside := *req
	inside.Secrets = kept
	if len(held) > 0 && req.SecretsRev != "" { // other secrets than that revision's: an instance that has those is another
		inside.SecretsRev = req.SecretsRev + "-" + strings.Join(slices.Sorted(maps.Keys(held)), "-")
	}
	return &inside
}
