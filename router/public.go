package router

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"paddock/controller/catalog"
	"paddock/internal/errs"
	"paddock/internal/identity"
	"paddock/internal/tenant"
)

// keylessRule says what a route is for those who bring no API key.
type keylessRule uint8

const (
	// keyNeeded: nothing.
	keyNeeded keylessRule = iota
	// keyOrPublic: functions whose access is public, or url_key with the right ?key=. An API key is honoured as well.
	keyOrPublic
	// publicOnly: likewise, and API keys are not looked at: what stands in Authorization is the function's business.
	publicOnly
)

// errNotPublic is what everybody hears who may not call a function that way, or names one that is not there: no tenant, no
// function, one that is not public, and a wrong key look alike.
func errNotPublic() error {
	return errs.New(errs.NotFound, "there is no public function here: check the address, and the function's ?key= if it has one")
}

// identify says who makes the request, and for which tenant. why is "" unless somebody is turned away.
func (x *exchange) identify() (who identity.Identity, why string, err error) {
	if x.rule.keyless == publicOnly || x.rule.keyless == keyOrPublic && !x.bringsKey() {
		return x.identifyPublic()
	}
	c := httpCredential(x.r)
	if x.host == "" {
		return x.router.auth.authorize(x.rule, c)
	}
	if c.tenant == "" { // the host names it
		c.tenant = string(x.host)
	}
	if who, why, err = x.router.auth.authorize(x.rule, c); err == nil && who.Tenant != x.host {
		return who, "tenant", denied("this key belongs to another tenant")
	}
	return who, why, err
}

// bringsKey says whether Authorization has what is meant to be an API key.
func (x *exchange) bringsKey() bool {
	return slices.ContainsFunc(x.r.Header["Authorization"], x.router.cfg.Keyring.LooksLikeKey)
}

// identifyPublic lets a request without a key pass to a function that wants such, and takes the ?key= away from what the
// function sees. Whatever the reason is for which it does not pass, the same work was done.
func (x *exchange) identifyPublic() (who identity.Identity, why string, err error) {
	t := x.host
	if t == "" {
		t = tenant.ID(x.params[0])
		x.params = params{x.params[1], x.params[2]}
	}
	function := x.params[0]
	access, why := x.publicAccess(t, function)
	key, rest := takeKey(x.r.URL.RawQuery)
	x.keyless = &keyless{tenant: t, function: function, access: access}
	if why == "" && access.Mode == catalog.AccessPublic {
		return identity.Identity{Tenant: t}, "", nil
	}
	right := x.router.cfg.Keyring.VerifyURLKey(t, function, access, key)
	if why == "" && access.Mode != catalog.AccessURLKey {
		why = "private"
	}
	if why == "" && !right {
		why = "url_key"
	}
	if why != "" {
		x.router.metrics.AuthFailed("public_" + why)
		return identity.Identity{Tenant: t}, "public_" + why, errNotPublic()
	}
	x.hideKey(rest)
	return identity.Identity{Tenant: t}, "", nil
}

// publicAccess is who may call a function, or why that is nobody's business. A version is never chosen from outside: an old one
// may have been replaced for a reason.
func (x *exchange) publicAccess(t tenant.ID, function string) (a *catalog.AccessView, why string) {
	c := x.router.cfg.Catalogue
	view, ok := c.Tenant(t)
	switch {
	case !ok:
		return nil, "tenant"
	case view.Policy.Suspended:
		return nil, "suspended"
	}
	if a, ok = c.Access(t, function); !ok {
		return nil, "function"
	}
	return a, ""
}

// maxURLKey is as much of a ?key= as is looked at; none is longer.
const maxURLKey = 128

// takeKey returns the value of the query's parameter "key", however it is escaped, and the query without it. Of several none is
// the right one.
func takeKey(query string) (key, rest string) {
	if !strings.Contains(query, "=") {
		return "", query
	}
	var others []string
	found := 0
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err != nil || plain != "key" {
			others = append(others, part)
			continue
		}
		found++
		key = value
	}
	if found == 0 {
		return "", query
	}
	plain, err := url.QueryUnescape(key)
	if err != nil || found > 1 || len(plain) > maxURLKey {
		plain = ""
	}
	return plain, strings.Join(others, "&")
}

// hideKey takes the ?key= out of what is left of the request, the address of the page that it came from included.
func (x *exchange) hideKey(query string) {
	own := *x.r.URL
	own.RawQuery, own.ForceQuery = query, false
	x.r.URL, x.r.RequestURI = &own, own.RequestURI()
	if from := x.r.Header["Referer"]; len(from) > 0 {
		kept := make([]string, len(from))
		for i, f := range from {
			kept[i], _, _ = strings.Cut(f, "?")
		}
		x.r.Header["Referer"] = kept
	}
}

// keyless is what a request without a key may do.
type keyless struct {
	tenant   tenant.ID
	function string
	access   *catalog.AccessView
}

// takePublicRate holds a function's callers without a key to its rate; their tenant's limits hold beside it.
func (x *exchange) takePublicRate() error {
	k := x.keyless
	if k == nil {
		return nil
	}
	now := time.Now()
	wait, ok := x.router.publicRates.take(publicFunction{k.tenant, k.function}, k.access, now)
	if ok {
		return nil
	}
	x.router.metrics.Refused("public_rate")
	pause, _ := x.router.turnstiles.strangers.turn(origin(x.r.RemoteAddr), 1, now)
	x.router.pause(x.r.Context(), pause)
	e := errs.New(errs.Limited, "function %s may be called %g times a second without a key", k.function, k.access.RatePerSecond)
	e.Cause, e.RetryAfter = "rate", wait
	return e
}

type publicFunction struct {
	tenant tenant.ID
	name   string
}

// publicRates are the token buckets of public functions. One exists while it is not full again. Safe for concurrent use.
type publicRates struct {
	mu      sync.Mutex
	buckets map[publicFunction]*publicBucket
	sweepAt int
}

type publicBucket struct {
	access *catalog.AccessView // that it was made for
	tokens *rate.Limiter
}

func newPublicRates() *publicRates {
	return &publicRates{buckets: map[publicFunction]*publicBucket{}, sweepAt: leastSweep}
}

// take takes a token, or says how long it is until there is one.
func (p *publicRates) take(f publicFunction, a *catalog.AccessView, now time.Time) (wait time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.buckets[f]
	switch {
	case b == nil:
		if len(p.buckets) >= p.sweepAt {
			p.sweepLocked(now)
		}
		b = &publicBucket{a, rate.NewLimiter(rate.Limit(a.RatePerSecond), a.RateBurst)}
		p.buckets[f] = b
	case b.access != a:
		b.access = a
		b.tokens.SetLimitAt(now, rate.Limit(a.RatePerSecond))
		b.tokens.SetBurstAt(now, a.RateBurst)
	}
	if b.tokens.AllowN(now, 1) {
		return 0, true
	}
	return untilToken(b.tokens, now), false
}

func (p *publicRates) sweepLocked(now time.Time) {
	for f, b := range p.buckets {
		if b.tokens.TokensAt(now) >= float64(b.tokens.Burst()) {
			delete(p.buckets, f)
		}
	}
	p.sweepAt = max(leastSweep, 2*len(p.buckets))
}

// toStranger is a failure as somebody without a key hears it: what kind it is, and nothing of what the code threw, of its versions
// or its tenant.
func toStranger(err error) error {
	e := *errs.From(err)
	e.Thrown = nil
	switch e.Kind {
	case errs.Invalid:
	case errs.NotFound:
		return errNotPublic()
	case errs.Limited:
		e.Message = "too many calls: wait for as long as Retry-After says"
	default:
		e.Message, e.Cause = "", ""
	}
	return withStatus(httpStatus(err), &e)
}

// hideFromStrangers takes out of an answer's head what says where it was made.
func hideFromStrangers(h http.Header) {
	for _, name := range [...]string{hContainer, hIsolation, hStart, hWarning, hTiming} {
		delete(h, name)
		delete(h, http.TrailerPrefix+name)
	}
}
