package pool_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"paddock/internal/call"
	"paddock/internal/tenant"
	"paddock/pool"
	"paddock/pool/fake"
)

// doors records what happens to every door, in order.
type doors struct {
	mu   sync.Mutex
	said map[pool.ContainerID][]string
}

func (d *doors) say(id pool.ContainerID, what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said[id] = append(d.said[id], what)
}

func (d *doors) heard(id pool.ContainerID) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprint(d.said[id])
}

type door struct {
	of *doors
	id pool.ContainerID
}

func (d door) SetRules(t tenant.ID, p *tenant.Policy) error {
	d.of.say(d.id, fmt.Sprintf("%s%v", t, p.Egress))
	return nil
}
func (d door) SetSecrets(values map[string]string) { d.of.say(d.id, fmt.Sprint("secrets ", values)) }
func (d door) CloseTunnels()                       { d.of.say(d.id, "tunnels closed") }
func (d door) Close() error                        { d.of.say(d.id, "closed"); return nil }

func TestDoors(t *testing.T) {
	all := &doors{said: map[pool.ContainerID][]string{}}
	bubble(t, func(_ *fake.Options, c *pool.Config) {
		c.OpenDoor = func(_ string, _, _ uint32, id pool.ContainerID) (pool.Door, error) {
			all.say(id, "opened")
			return door{all, id}, nil
		}
	}, func(r *rig) {
		r.untilReady(2)
		req := r.req("a", "value 1")
		req.Policy = policy(func(p *tenant.Policy) { p.Egress = []string{"x:443"} })
		res, err := r.run(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := all.heard(res.Container); got != "[opened a[x:443]]" {
			t.Errorf("at the first call: %s", got)
		}
		r.SetPolicy("a", policy(func(p *tenant.Policy) { p.Egress = []string{"y:443"} }))
		if _, err := r.run(req); err != nil { // with the old policy: it does not count any more
			t.Fatal(err)
		}
		synctest.Wait()
		if got := all.heard(res.Container); got != "[opened a[x:443] a[y:443]]" {
			t.Errorf("after another policy: %s", got)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if got := all.heard(res.Container); got != "[opened a[x:443] a[y:443] tunnels closed]" {
			t.Errorf("frozen: %s", got)
		}
		r.Drain(pool.Selector{Container: res.Container}, pool.CauseAdmin)
		synctest.Wait()
		if got := all.heard(res.Container); got != "[opened a[x:443] a[y:443] tunnels closed closed]" {
			t.Errorf("destroyed: %s", got)
		}
	})
}

// named is a door that can ask whose call runs.
type named struct {
	door
	callOf *func() call.ID
}

func (n named) NameCalls(callOf func() call.ID) { *n.callOf = callOf }

func TestDoorsKnowTheOnlyCall(t *testing.T) {
	all := &doors{said: map[pool.ContainerID][]string{}}
	var callOf func() call.ID
	bubble(t, func(_ *fake.Options, c *pool.Config) {
		c.MinReady = 1
		c.OpenDoor = func(_ string, _, _ uint32, id pool.ContainerID) (pool.Door, error) {
			if callOf != nil {
				return door{all, id}, nil
			}
			return named{door{all, id}, &callOf}, nil
		}
	}, func(r *rig) {
		r.untilReady(1)
		if id := callOf(); id != "" {
			t.Errorf("before any call: %q", id)
		}
		one, two := r.req("a", "sleep 2s"), r.req("a", "sleep 1s")
		one.ID, two.ID = "one", "two"
		var wg sync.WaitGroup
		wg.Go(func() { r.run(one) })
		synctest.Wait()
		if id := callOf(); id != "one" {
			t.Errorf("with one call: %q", id)
		}
		wg.Go(func() { r.run(two) })
		synctest.Wait()
		if id := callOf(); id != "" {
			t.Errorf("with two calls: %q", id)
		}
		time.Sleep(1500 * time.Millisecond)
		if id := callOf(); id != "one" {
			t.Errorf("with one call again: %q", id)
		}
		wg.Wait()
	})
}

// TestSecretsForOutsideStayOutside: what is added to requests goes to the door with each call and never into the sandbox, under
// the policy in force and under the call's own.
func TestSecretsForOutsideStayOutside(t *testing.T) {
	all := &doors{said: map[pool.ContainerID][]string{}}
	inject := func(names ...string) func(*tenant.Policy) {
		return func(p *tenant.Policy) {
			for _, name := range names {
				p.Inject = append(p.Inject, tenant.Injection{Host: "api.example.com", Header: "X-Key", Secret: name})
			}
		}
	}
	bubble(t, func(_ *fake.Options, c *pool.Config) {
		c.OpenDoor = func(_ string, _, _ uint32, id pool.ContainerID) (pool.Door, error) { return door{all, id}, nil }
	}, func(r *rig) {
		r.untilReady(2)
		req := r.req("a", "secrets")
		req.Secrets = map[string]string{"KEY": "one", "OTHER": "two"}
		req.SecretsRev = "r"
		req.Outside = map[string]string{"KEY": "out"}
		run := func(want, said string, fresh bool) {
			t.Helper()
			req.Fresh = fresh
			res, err := r.run(req)
			if err != nil {
				t.Fatal(err)
			}
			if rev := req.SecretsRev; rev != "r" {
				t.Errorf("the caller's revision has become %q", rev)
			}
			if string(res.Value) != want {
				t.Errorf("the sandbox has %s, want %s", res.Value, want)
			}
			if got := all.heard(res.Container); !strings.Contains(got, said) || said == "" && strings.Contains(got, "secrets") {
				t.Errorf("the door heard %s, want %s", got, said)
			}
		}
		run(`{"KEY":"one","OTHER":"two"}`, "", false)
		req.Policy = policy(inject("KEY", "MISSING"))
		run(`{"OTHER":"two"}`, "secrets map[KEY:out]", false)
		run(`{"OTHER":"two"}`, "secrets map[KEY:out]", true)
		r.SetPolicy("a", policy(inject("OTHER"))) // the call's own policy is an older one
		run(`{}`, "secrets map[KEY:out]", false)
		if len(req.Secrets) != 2 {
			t.Errorf("the caller's request has become %v", req.Secrets)
		}
	})
}
