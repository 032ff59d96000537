package chaos

import (
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// F11: nobody is taken for dead because the store has forgotten its lease.
func (x *chaos) revokeLeases() {
	began := x.h.now()
	before := map[*node]map[string]string{}
	for _, n := range x.nodes {
		before[n] = x.latches(n)
	}
	ctx, cancel := bounded()
	defer cancel()
	leases, err := x.store.Leases(ctx)
	if err != nil {
		x.fail("leases are listed", err)
		return
	}
	for _, l := range leases.Leases {
		if _, err := x.store.Revoke(ctx, clientv3.LeaseID(l.ID)); err != nil {
			x.fail("leases are revoked", err)
			return
		}
	}
	x.promise("every controller had one", fmt.Sprintf("%d revoked", len(leases.Leases)), len(leases.Leases) >= controllers)
	x.eventually("all are registered again", 10*time.Second, x.whole)
	lost := 0
	for n, held := range before {
		now := x.latches(n)
		for id, t := range held {
			if _, there := now[id]; t != "" && !there {
				lost++
			}
		}
	}
	x.promise("no container in use is ended for it", fmt.Sprintf("%d were", lost), lost == 0)
	x.untouched("0 failed calls", began, nil)
}
