package catalog

import (
	"crypto/hmac"
	"math"
	"strings"

	"golang.org/x/net/idna"

	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// AccessMode says who may call a function without a key of its tenant.
type AccessMode string

// The modes.
const (
	AccessKey    AccessMode = "key"     // nobody
	AccessPublic AccessMode = "public"  // everybody
	AccessURLKey AccessMode = "url_key" // who has the function's own key, which goes in the URL
)

// Rates of calls without a tenant's key, of a function about which nothing was said.
const (
	DefaultAccessRate  = 20.0 // calls per second
	accessBurstSeconds = 2    // of the rate may come at once
)

func parseAccessMode(s string) (AccessMode, bool) {
	switch m := AccessMode(s); m {
	case "":
		return AccessKey, true
	case AccessKey, AccessPublic, AccessURLKey:
		return m, true
	}
	return "", false
}

// AccessView says who may call a function besides those with a key of its tenant, and how often all of them together. Nobody
// changes one: as long as nothing of it changes it is the same pointer.
type AccessView struct {
	Mode          AccessMode
	RatePerSecond float64 // above 0
	RateBurst     int     // at least 1
	mac           []byte  // of the URL key
}

// keyOnly is the access of functions about which nothing was said.
func keyOnly() *AccessView { return decodeAccess(nil, nil) }

// Access says who may call a function, and whether there is one.
func (v *View) Access(t tenant.ID, function string) (*AccessView, bool) {
	f, ok := v.lookup(t, function)
	if !ok {
		return nil, false
	}
	if f.access == nil {
		return keyOnly(), true
	}
	return f.access, true
}

// VerifyURLKey compares a function's ?key= with what its record says, in constant time, and in the same where there is none: then
// it is false. It does not look at the mode. A nil view has no key.
func (k *Keyring) VerifyURLKey(t tenant.ID, function string, a *AccessView, key string) bool {
	mac := k.pepper.urlMAC(t, function, key)
	if a == nil || len(a.mac) != macBytes {
		hmac.Equal(mac, mac)
		return false
	}
	return hmac.Equal(a.mac, mac)
}

// LooksLikeKey says whether a text has something in it that is meant to be an API key, be it one or not: nobody else is shown it.
func (k *Keyring) LooksLikeKey(text string) bool { return strings.Contains(text, tokenPrefix) }

// urlMAC binds a URL key to its function. No API key's id has a '/'.
func (p Pepper) urlMAC(t tenant.ID, function, key string) []byte {
	return p.mac("url/"+string(t)+"/"+function, key)
}

// decodeAccess fills in what a record leaves open. A mode that it does not know is the closed one.
func decodeAccess(a *pb.Access, mac []byte) *AccessView {
	mode, ok := parseAccessMode(a.GetMode())
	if !ok {
		mode = AccessKey
	}
	v := &AccessView{Mode: mode, RatePerSecond: a.GetRatePerSecond(), RateBurst: int(a.GetRateBurst()), mac: mac}
	if v.RatePerSecond == 0 {
		v.RatePerSecond = DefaultAccessRate
	}
	if v.RateBurst == 0 {
		v.RateBurst = max(1, int(min(accessBurstSeconds*v.RatePerSecond, math.MaxInt32)))
	}
	return v
}

// TenantOfHost returns the tenant whose public functions answer at a host name, and whether there is one. Upper case, a final
// dot and a port do not matter.
func (v *View) TenantOfHost(host string) (tenant.ID, bool) {
	if t, ok := v.hosts.get(host); ok {
		return t, true
	}
	bare := stripPort(host)
	if plainHost(bare) {
		return v.hosts.get(bare)
	}
	name, err := normalHost(bare)
	if err != nil {
		return "", false
	}
	return v.hosts.get(name)
}

// plainHost says whether a name is as normalHost would leave it, if it is one at all: it is asked with every request.
func plainHost(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-':
		case c == '.' && i < len(name)-1:
		default:
			return false
		}
	}
	return !strings.Contains(name, "xn--")
}

func stripPort(host string) string {
	if i := strings.LastIndexByte(host, ':'); i > 0 && strings.Count(host, ":") == 1 {
		return host[:i]
	}
	return host
}

const maxHostBytes = 253

// normalHost returns the one form of a host name under which it is kept and looked for: lower case, ASCII, no final dot.
func normalHost(name string) (string, error) {
	bad := func() (string, error) {
		return "", errs.New(errs.Invalid, "host %.80q: use a name such as rules.example.com, without a scheme, a port or a path", name)
	}
	if len(name) > 4*maxHostBytes {
		return bad()
	}
	ascii, err := idna.Lookup.ToASCII(strings.TrimSuffix(name, "."))
	if err != nil || ascii == "" || len(ascii) > maxHostBytes {
		return bad()
	}
	labels := strings.Split(ascii, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 {
			return bad()
		}
	}
	if len(labels) < 2 || strings.Trim(labels[len(labels)-1], "0123456789") == "" { // an address, or a name of this machine's own
		return bad()
	}
	return ascii, nil
}
