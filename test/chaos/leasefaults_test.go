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

// F12: every new leader gives all leases their whole time again, so that none ends as long as leaders change faster; then they do, and
// so do the sandboxes of a controller that never returns. Calls do not wait for that.
func (x *chaos) moveLeaders() {
	n, tenants := x.busiest()
	held := x.latches(n)
	n.kill()
	lost := x.h.now()
	moves, last := 0, lost
	for x.h.now()-lost < 25*time.Second {
		if err := x.moveLeader(); err == nil {
			moves++
			last = x.h.now()
		}
		time.Sleep(5 * time.Second)
	}
	x.promise("the leader was moved", fmt.Sprintf("%d times", moves), moves > 0)
	x.in(fmt.Sprintf("its %d tenants are answered elsewhere, p99", len(tenants)), quantile(x.elsewhere(tenants, lost, false), 0.99), 2*time.Second)
	gone := func() bool {
		there, err := x.store.registered()
		_, still := there[n.id]
		return err == nil && !still
	}
	_, ok := x.await(2*leaseTTL+2*time.Second-(x.h.now()-last), gone)
	x.promise("a dead controller's record is gone, ≤ 22s after the last change", fmt.Sprint((x.h.now() - last).Round(time.Millisecond)), ok)
	x.eventually("its sandboxes end, 60 s after it", 75*time.Second-(x.h.now()-lost), func() bool { return x.processesOf(n, held) == 0 })
	if err := n.start(); err != nil {
		x.fail("it starts again", err)
		return
	}
	if err := n.awaitReady(); err != nil {
		x.fail("it starts again", err)
	}
	x.untouched("only calls in flight there failed", lost, func(s sample) bool { return lostWithController(s) && s.began < lost+time.Second })
}

// processesOf counts the processes of containers.
func (x *chaos) processesOf(n *node, held map[string]string) (all int) {
	for id := range held {
		if g, err := x.group(n, id); err == nil && g.Exists() {
			pids, _ := g.Procs()
			all += len(pids)
		}
	}
	return all
}

func (x *chaos) moveLeader() error {
	at := x.store.leader()
	if at < 0 {
		return fmt.Errorf("there is no leader")
	}
	ctx, cancel := bounded()
	defer cancel()
	to, err := x.store.Status(ctx, x.store.endpoints[(at+1)%members])
	if err != nil {
		return err
	}
	c, err := x.store.dial(x.store.endpoints[at])
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.MoveLeader(ctx, to.Header.MemberId)
	return err
}
