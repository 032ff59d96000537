package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"
	"time"

	etcdpb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"paddock/controller/catalog"
	"paddock/controller/store"
)

// write tries to deploy a version of the victim's function.
func (x *chaos) write(router int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 12*time.Second)
	defer cancel()
	_, err := x.management(router).deploy(ctx, victim, "written", echoSource(victim, 0)+fmt.Sprintf("// %d\n", x.h.now()), 0)
	return err
}

// written adds a row: changes are taken again.
func (x *chaos) written(limit time.Duration) {
	var err error
	took, ok := x.await(limit, func() bool { err = x.write(0); return err == nil })
	x.promise(fmt.Sprintf("changes are taken, ≤ %v", stretch(limit)), fmt.Sprint(took.Round(time.Millisecond)), ok, fmt.Sprint(err))
}

// notWritten adds a row: changes are refused with a clear error, whatever router is asked.
func (x *chaos) notWritten() {
	for i := range x.routers {
		err := x.write(i)
		r, ok := err.(*refused)
		x.promise(fmt.Sprintf("changes by r%d are refused, and say why", i+1), fmt.Sprintf("%.38s", fmt.Sprint(err)), ok && r.status >= 500 && r.kind != "" && r.kind != "internal", fmt.Sprint(err))
	}
}

// bare is a tenant that is known and has no container.
func (x *chaos) bare() (name, key string) {
	name, key = x.newTenant()
	x.await(20*time.Second, func() bool {
		holders := x.holders(name)
		for n, ids := range holders {
			for _, id := range ids {
				_ = x.strike(n, id, syscall.SIGKILL)
			}
		}
		return len(holders) == 0
	})
	return name, key
}

// newcomer adds a row: a tenant without a container is served.
func (x *chaos) newcomer(name, key string) {
	s := x.caller.call(name, key, options{router: -1})
	x.promise("a tenant that had no container is served", s.outcome, !failed(s), fmt.Sprint(s))
}

// recorded says whether the store has a record of a tenant's container.
func (x *chaos) recorded(name string) bool {
	all, err := x.store.keys(store.AssignmentsPrefix)
	for key := range all {
		if strings.Contains(key, "/"+name+"/") {
			return err == nil
		}
	}
	return false
}

// partitioned is how long a partition lasts: longer than leases do.
const partitioned = leaseTTL + 5*time.Second

// F6: what is in memory serves; what was done meanwhile is written when the store is back.
func (x *chaos) partition() {
	name, key := x.bare()
	began := x.h.now()
	for _, w := range x.waysToStore() {
		w.hold()
	}
	time.Sleep(2 * time.Second)
	x.newcomer(name, key)
	x.notWritten()
	time.Sleep(max(0, partitioned-(x.h.now()-began)))
	for _, w := range x.waysToStore() {
		w.heal()
	}
	x.h.mark("the store is reached again")
	x.eventually("all are registered again", 10*time.Second, x.whole)
	x.eventually("new assignments are recorded", 10*time.Second, func() bool { return x.recorded(name) })
	x.surplusGone(10 * time.Second)
	x.written(10 * time.Second)
	x.untouched("0 failed calls", began, nil)
}

// F6a: what it sends arrives, and it hears nothing.
func (x *chaos) halfPartition() {
	n, _ := x.busiest()
	began := x.h.now()
	for _, w := range n.store {
		w.hold(back)
	}
	time.Sleep(partitioned)
	for _, w := range n.store {
		w.heal()
	}
	x.eventually("it is registered again", 10*time.Second, x.whole)
	x.surplusGone(10 * time.Second)
	x.untouched("0 failed calls", began, nil)
}

// healthy says whether a member answers and knows a leader.
func (x *chaos) healthy(m *member) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	st, err := x.store.Status(ctx, "https://"+m.client)
	return err == nil && st.Leader != 0
}

// F7: the others go on.
func (x *chaos) killMembers() {
	began := x.h.now()
	for _, leads := range []bool{false, true} {
		at := x.store.leader()
		if at < 0 {
			x.fail("the store has a leader", fmt.Errorf("nobody says so"))
			return
		}
		if !leads {
			at = (at + 1 + x.random.IntN(members-1)) % members
		}
		m := x.members[at]
		m.kill()
		x.h.mark("%s is dead, leader: %v", m.name, leads)
		x.written(5 * time.Second)
		if err := m.start(); err != nil {
			x.fail("it starts again", err)
		}
		x.eventually("it is back", 20*time.Second, func() bool { return x.healthy(m) })
	}
	x.untouched("0 failed calls", began, nil)
}

// F8: calls go on, changes do not, and none is said to be done that is not.
func (x *chaos) loseQuorum() {
	name, key := x.bare()
	at := x.random.IntN(members)
	began := x.h.now()
	lost := []*member{x.members[at], x.members[(at+1)%members]}
	for _, m := range lost {
		m.kill()
	}
	time.Sleep(2 * time.Second)
	x.newcomer(name, key)
	x.notWritten()
	time.Sleep(max(0, time.Minute-(x.h.now()-began)))
	for _, m := range lost {
		if err := m.start(); err != nil {
			x.fail("members start again", err)
		}
	}
	if _, ok := x.await(20*time.Second, func() bool { return x.healthy(lost[0]) && x.healthy(lost[1]) }); !ok {
		x.fail("members start again", fmt.Errorf("%s", lost[0].log.Tail(15)))
	}
	x.h.mark("the store has its quorum")
	x.written(10 * time.Second)
	x.eventually("all are registered again", 10*time.Second, x.whole)
	x.eventually("new assignments are recorded", 10*time.Second, func() bool { return x.recorded(name) })
	x.surplusGone(10 * time.Second)
	x.untouched("0 failed calls", began, nil)
}

// F9: what was acknowledged is in the others.
func (x *chaos) replaceMember() {
	began := x.h.now()
	before, err := x.store.keys(store.Root)
	if err != nil {
		x.fail("the store is read", err)
		return
	}
	at := x.random.IntN(members)
	m := x.members[at]
	m.kill()
	if err := os.RemoveAll(m.dir); err != nil {
		x.fail("its disk is lost", err)
		return
	}
	if err := x.exchange(m); err != nil {
		x.fail("it is replaced", err)
		return
	}
	m.args = append(m.args, "--join")
	err = m.start()
	m.args = m.args[:len(m.args)-1]
	if err != nil {
		x.fail("it is replaced", err)
		return
	}
	x.eventually("the new member serves", 30*time.Second, func() bool { return x.healthy(m) })
	alone, err := x.store.dial("https://" + m.client)
	if err != nil {
		x.fail("the new member is asked", err)
		return
	}
	defer alone.Close()
	var missing []string
	x.eventually("no acknowledged write is lost", 20*time.Second, func() bool {
		one := &storeClient{Client: alone}
		after, err := one.keys(store.Root)
		missing = missing[:0]
		for key, rev := range before {
			if after[key] < rev && !mayGo(key, rev, after) {
				missing = append(missing, key)
			}
		}
		return err == nil && len(missing) == 0
	})
	if len(missing) > 0 {
		x.h.mark("missing at %s: %s", m.name, strings.Join(missing, " "))
	}
	x.untouched("0 failed calls", began, nil)
}

// mayGo says whether a key of a revision may have been taken out on purpose: who serves what, who decides, and the oldest of a
// function's many versions. Those have newer ones enough: what is kept beside the newest (served, pinned) is a few.
func mayGo(key string, rev int64, now map[string]int64) bool {
	switch {
	case strings.HasPrefix(key, store.AssignmentsPrefix), strings.HasPrefix(key, store.ElectionPrefix):
		return true
	case !strings.HasPrefix(key, store.VersionsPrefix):
		return false
	}
	of := path.Dir(key) + "/"
	newer := 0
	for other, made := range now {
		if strings.HasPrefix(other, of) && made > rev {
			newer++
		}
	}
	return newer >= catalog.MaxVersions-keptOld
}

// keptOld bounds the versions that stay although a hundred newer ones came: what the load serves, pins or names in a pipeline.
const keptOld = 5

// exchange tells the store that a member is gone for good and that another one comes at its address.
func (x *chaos) exchange(m *member) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	list, err := x.store.MemberList(ctx)
	if err != nil {
		return err
	}
	for _, old := range list.Members {
		if old.Name == m.name {
			if _, err := x.store.MemberRemove(ctx, old.ID); err != nil {
				return err
			}
		}
	}
	for {
		_, err := x.store.MemberAdd(ctx, []string{"https://" + m.peer})
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond) // members that were connected a moment ago do not count as healthy yet
	}
}

// F10: who cannot go on from where it was reads everything again.
func (x *chaos) compact() {
	began := x.h.now()
	n, _ := x.busiest()
	for _, w := range append(n.store[:], x.routers[1].store[:]...) {
		w.cut(true)
	}
	const version = 77
	var f function
	var err error
	for i := range 5 {
		if f, err = x.management(0).deploy(x.t.Context(), victim, "written", echoSource(victim, version)+fmt.Sprintf("// %d %d\n", i, x.h.now()), 0); err != nil {
			x.fail("changes are made", err)
		}
	}
	ctx, cancel := bounded()
	defer cancel()
	_, err = x.store.Compact(ctx, f.Revision, clientv3.WithCompactPhysical())
	x.promise("the store forgets what was before", fmt.Sprintf("revision %d", f.Revision), err == nil, fmt.Sprint(err))
	for _, w := range append(n.store[:], x.routers[1].store[:]...) {
		w.heal()
	}
	var last sample
	took, ok := x.await(10*time.Second, func() bool {
		last = x.caller.call(victim, x.keys[victim], options{router: 1, name: "written"})
		return !failed(last) && last.version == version
	})
	x.promise(fmt.Sprintf("the router that was away sees it, ≤ %v", stretch(10*time.Second)), fmt.Sprint(took.Round(time.Millisecond)), ok, fmt.Sprint(last))
	x.untouched("0 failed calls", began, nil)
}

// F13: nobody loses its lease for it.
func (x *chaos) slowDisks() {
	before, err := x.store.registered()
	if err != nil {
		x.fail("the store is read", err)
		return
	}
	began := x.h.now()
	var tracers []*exec.Cmd
	for _, m := range x.members {
		c := exec.Command("strace", "-f", "-q", "-o", "/dev/null", "-p", fmt.Sprint(m.pid()), "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_enter=300000")
		if err := c.Start(); err != nil {
			x.fail("fsync is slowed", err)
			continue
		}
		tracers = append(tracers, c)
	}
	time.Sleep(2 * time.Second)
	from := x.h.now()
	err = x.write(0)
	x.promise("a change is taken, and takes longer", fmt.Sprintf("%v, %v", (x.h.now()-from).Round(time.Millisecond), err), err == nil && x.h.now()-from > 300*time.Millisecond)
	time.Sleep(max(0, partitioned-(x.h.now()-began)))
	for _, c := range tracers {
		_ = c.Process.Signal(syscall.SIGINT)
		_ = c.Wait()
	}
	after, err := x.store.registered()
	lost := 0
	for id, rev := range before {
		if after[id] != rev {
			lost++
		}
	}
	x.promise("no lease is lost", fmt.Sprintf("%d were", lost), err == nil && lost == 0)
	x.untouched("0 failed calls", began, nil)
}

// F14: a store that takes nothing more is no reason to answer nobody.
func (x *chaos) noSpace() {
	began := x.h.now()
	ctx, cancel := bounded()
	defer cancel()
	st, err := x.store.Status(ctx, x.store.endpoints[0])
	if err != nil {
		x.fail("the store is asked", err)
		return
	}
	alarm := &etcdpb.AlarmRequest{Action: etcdpb.AlarmRequest_ACTIVATE, MemberID: st.Header.MemberId, Alarm: etcdpb.AlarmType_NOSPACE}
	raw := etcdpb.NewMaintenanceClient(x.store.ActiveConnection())
	if _, err := raw.Alarm(ctx, alarm); err != nil {
		x.fail("the alarm is raised", err)
		return
	}
	x.notWritten()
	name := loadNames()[0]
	s := x.caller.call(name, x.keys[name], options{router: -1})
	x.promise("calls go on", s.outcome, !failed(s), fmt.Sprint(s))
	time.Sleep(3 * time.Second)
	alarm.Action = etcdpb.AlarmRequest_DEACTIVATE
	if _, err := raw.Alarm(ctx, alarm); err != nil {
		x.fail("the alarm is taken back", err)
	}
	x.written(10 * time.Second)
	x.untouched("0 failed calls", began, nil)
}

// F25: what cannot be read is left out, with an alarm; everything else goes on.
func (x *chaos) garbage() {
	began := x.h.now()
	keys := []string{store.Tenant("garbage"), store.Function(victim, "garbage"), store.Controller("garbage"),
		store.Assignment(x.nodes[0].id, victim, "node", "garbage"), store.Root + "unheard-of/garbage"}
	ctx, cancel := bounded()
	defer cancel()
	for _, k := range keys {
		if _, err := x.store.Put(ctx, k, "\xff\xfe\xfd garbage"); err != nil {
			x.fail("garbage is written", err)
		}
	}
	x.written(10 * time.Second)
	f := x.routers[1]
	if err := x.rotate(1, func(*front) error { return x.replace(f.process, x.bin, syscall.SIGTERM) }); err != nil {
		x.fail("a router starts in spite of it", err)
	}
	n, _ := x.busiest()
	if err := x.replace(n.process, x.bin, syscall.SIGUSR2); err != nil {
		x.fail("a controller starts in spite of it", err)
	}
	later, done := bounded()
	defer done()
	for _, k := range keys {
		if _, err := x.store.Delete(later, k); err != nil {
			x.fail("garbage is removed", err)
		}
	}
	x.settle()
	x.untouched("0 failed calls (streams apart)", began, func(s sample) bool { return s.stream })
}
