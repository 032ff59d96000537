package catalog

import (
	lru "github.com/hashicorp/golang-lru/v2"
	"google.golang.org/protobuf/proto"

	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// sharedPolicies are how many different ones are remembered.
const sharedPolicies = 4096

// policyPool lets tenants of equal policy have one value: of a million most say nothing, or what a thousand others say.
type policyPool struct {
	byText *lru.Cache[policyText, *tenant.Policy]
}

type policyText struct {
	record    string // as it is stored
	suspended bool
}

func newPolicyPool() *policyPool {
	c, _ := lru.New[policyText, *tenant.Policy](sharedPolicies)
	return &policyPool{c}
}

// shared returns a policy equal to p, which is what record means.
func (s *policyPool) shared(record *pb.Policy, p *tenant.Policy) *tenant.Policy {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(record)
	if err != nil {
		return p
	}
	key := policyText{string(text), p.Suspended}
	if old, ok := s.byText.Get(key); ok {
		return old
	}
	s.byText.Add(key, p)
	return p
}
