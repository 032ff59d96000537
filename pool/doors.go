package pool

import (
	"errors"
	"fmt"

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
func (d egressDoor) SetRules(t tenant.ID, allow, private []string) error {
	a, err := parseRules(allow)
	b, err2 := parseRules(private)
	d.Door.SetRules(t, a, b)
	return errors.Join(err, err2)
}

func parseRules(texts []string) ([]egress.Rule, error) {
	var bad error
	rules := make([]egress.Rule, 0, len(texts))
	for _, text := range texts {
		r, err := egress.ParseRule(text)
		if err != nil {
			bad = errors.Join(bad, fmt.Errorf("egress rule %.100q: %w", text, err))
			continue
		}
		rules = append(rules, r)
	}
	return rules, bad
}
