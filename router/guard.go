package router

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// Bounds on failed credentials per address; a good credential is never held up by them.
const (
	guardAddresses = 4096
	guardBurst     = 50
	guardPerSecond = 5
)

// guard counts failed credentials per address, so that guessing is slow and leaves no flood behind. The least recently
// failing addresses are forgotten. Safe for concurrent use.
type guard struct {
	seen  *lru.Cache[string, *rate.Limiter]
	burst int
}

func newGuard() (*guard, error) {
	seen, err := lru.New[string, *rate.Limiter](guardAddresses)
	return &guard{seen: seen, burst: guardBurst}, err
}

// failed notes a failure from host and returns how long it ought to wait, 0 if it may try on.
func (g *guard) failed(host string, now time.Time) time.Duration {
	l, ok := g.seen.Get(host)
	if !ok {
		l = rate.NewLimiter(guardPerSecond, g.burst)
		if before, existed, _ := g.seen.PeekOrAdd(host, l); existed {
			l = before
		}
	}
	if l.AllowN(now, 1) {
		return 0
	}
	return time.Second
}
