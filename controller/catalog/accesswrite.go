package catalog

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"math"

	"google.golang.org/protobuf/proto"

	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// urlKeyPrefix lets people and scanners see what a URL key is.
const urlKeyPrefix = "pdu_"

// AccessChange is what UpdateFunction changes.
type AccessChange struct {
	Access    *pb.Access // nil: as it is
	NewURLKey bool       // make another URL key; the old one ends
}

// UpdateFunction changes who may call a function without a key of its tenant, and how often. It returns the function's URL key
// if one was made, which nothing can show again.
func (s *Service) UpdateFunction(ctx context.Context, t tenant.ID, name string, n AccessChange) (*FunctionView, string, error) {
	key := ""
	f, err := s.changeFunction(ctx, "update function", t, name, 0, func(f *functionChange) error {
		access := f.rec.GetAccess()
		if n.Access != nil {
			if err := checkAccess(n.Access, f.change.policy); err != nil {
				return err
			}
			access = proto.Clone(n.Access).(*pb.Access)
		}
		mode, _ := parseAccessMode(access.GetMode())
		switch {
		case mode == AccessURLKey && (n.NewURLKey || len(f.rec.GetUrlKeyMac()) == 0):
			key = newURLKey()
			f.rec.UrlKeyMac = s.opts.Pepper.urlMAC(t, name, key)
		case n.NewURLKey:
			return errs.New(errs.Invalid, "access of %s is %q: a key for its URL goes with url_key", name, mode)
		case mode != AccessURLKey:
			f.rec.UrlKeyMac = nil // who turns it on again does not mean those who had the old one
		}
		f.written = f.written || n.NewURLKey || key != "" || !proto.Equal(f.rec.GetAccess(), access)
		f.rec.Access = access
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return f, key, nil
}

func newURLKey() string {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails
	return urlKeyPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// checkAccess bounds a function's rate by its tenant's.
func checkAccess(a *pb.Access, policy tenant.Policy) error {
	if _, ok := parseAccessMode(a.GetMode()); !ok {
		return errs.New(errs.Invalid, "there is no access %.40q: use key, public or url_key", a.GetMode())
	}
	if r := a.GetRatePerSecond(); !(r >= 0 && r <= policy.RatePerSecond) { // NaN too
		return errs.New(errs.Invalid, "rate_per_second is %v: it must be from 0, for the default, to %v, the tenant's own", r,
			policy.RatePerSecond)
	}
	most := max(int64(policy.RateBurst), int64(math.Ceil(accessBurstSeconds*policy.RatePerSecond)))
	if b := int64(a.GetRateBurst()); b < 0 || b > most {
		return errs.New(errs.Invalid, "rate_burst is %d: it must be from 0, which follows the rate, to %d", b, most)
	}
	return nil
}
