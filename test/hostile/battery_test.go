package hostile

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Bounds that hold for every attack.
const (
	goneWithin  = 10 * time.Second // until nothing is left of a container
	hostGrowth  = 96 << 20         // bytes by which the service may grow while an attack runs
	calmPercent = 10               // of descriptors and goroutines that may be more in the end
)

// battery is the attacks on one engine.
type battery struct {
	t       *testing.T
	engine  engine
	service *service
	canary  *canary
	planted *planted
	own     []process
	net     *listeners
	pulse   *pulse
	ends    sync.WaitGroup // attackers' ends that are being watched

	base   lap    // the canary without attacks
	before gauges // the service without attacks

	mu      sync.Mutex
	results []result
}

// What happens before the first attack: so many tenants come and go, one each peace.
const (
	peaceful = 6
	peace    = 250 * time.Millisecond
)

// sort tells what a line of the table is about.
type sort uint8

const (
	hostile  sort = iota // an attack: it has to be stopped
	weakened             // an attack with a setting weakened: the oracle has to object
	check                // what is judged over many attacks, or is no attack
)

// result is a line of the table.
type result struct {
	engine   engine
	id, file string
	kind     string
	took     time.Duration // to the answer
	gone     time.Duration // from the answer until nothing was left of a container that had to go by itself
	hostCPU  time.Duration
	sort     sort
	want     []string
	wrong    []string
	story    string // what the operator's log says of the container, where the attack was missed
}

// stopped says whether it ended as it has to.
func (r result) stopped() bool { return (len(r.wrong) == 0) != (r.sort == weakened) }

// planted is a file on the host that no sandbox may see or change.
type planted struct{ path, secret string }

func plant(t *testing.T) *planted {
	t.Helper()
	p := &planted{path: filepath.Join(t.TempDir(), "host-canary"), secret: "planted-on-host-" + secret(t)}
	if err := os.WriteFile(p.path, []byte(p.secret), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *planted) unchanged() bool {
	b, err := os.ReadFile(p.path)
	return err == nil && string(b) == p.secret
}

func newBattery(t *testing.T, e engine) *battery {
	t.Helper()
	b := &battery{t: t, engine: e, planted: plant(t), net: listen(t), pulse: startPulse(t)}
	b.service = startService(t, e)
	var err error
	if b.own, err = b.service.own(); err != nil {
		t.Fatal(err)
	}
	b.canary = startCanary(t, b.service, b.pulse)
	t.Cleanup(b.canary.end)
	return b
}

// secrets are what may turn up nowhere.
func (b *battery) secrets() []string {
	return append(slices.Clone(b.canary.secrets), b.planted.secret, b.service.key, b.canary.key)
}

// leaks says which secrets are in text.
func (b *battery) leaks(where, text string) (wrong []string) {
	for _, s := range b.secrets() {
		if strings.Contains(text, s) {
			wrong = append(wrong, fmt.Sprintf("%s: holds a planted secret (%.15s…)", where, s))
		}
	}
	return wrong
}

// run makes one attempt and looks at everything after it.
func (b *battery) run(a *attack) {
	if a.hostCPU > 0 {
		b.ends.Wait() // what it costs to replace containers is not this one's
	}
	at, err := b.prepare(a)
	if err != nil {
		b.t.Errorf("%v %s: %v", b.engine, a.id, err)
		b.add(result{engine: b.engine, id: a.id, file: a.file, want: a.want, kind: "not run", wrong: []string{err.Error()}})
		return
	}
	r := at.execute()
	if a.peaceful {
		r.sort = check
	}
	b.ends.Go(func() { // the next attack runs meanwhile
		at.dispose(&r)
		r.wrong = at.wrong
		if !r.stopped() {
			r.story = about(&b.service.log, at.container) + about(&b.service.log, at.tenant+"-") // and of those that took part
		}
		b.add(r)
	})
}

// prepare makes the attacker: a tenant of its own, with a container.
func (b *battery) prepare(a *attack) (*attempt, error) {
	at := &attempt{battery: b, attack: a, tenant: tenantName(a.id)}
	var err error
	if at.key, err = b.service.admit(at.tenant, a.policy); err != nil {
		return nil, err
	}
	// A first call gets it the container that it attacks from.
	first, err := at.runSource(`module.exports = () => 'ready'`, nil, 30*time.Second, false)
	if err != nil {
		return nil, err
	}
	if first.kind != "ok" {
		return nil, fmt.Errorf("the first call ended as %s: %s", first.kind, first.detail)
	}
	at.container = first.container
	if at.host, err = b.service.look(at.container); err != nil {
		return nil, err
	}
	if a.before != nil {
		return at, a.before(at)
	}
	return at, nil
}

// tenantName makes a tenant's id of an attack's.
func tenantName(id string) string {
	return "mallory-" + strings.ReplaceAll(strings.ToLower(id), " ", "-")
}

// execute launches the attack and judges what can be judged while the attacker's container is there.
func (at *attempt) execute() result {
	b := at.battery
	_, failures := b.canary.complaints(0)
	from := b.service.log.Len()
	before, _ := b.own[0].resident()
	b.own[0].forgetPeak()
	cpu := b.cpu()
	began := time.Now()
	var err error
	if at.answer, err = at.launch(); err != nil {
		at.fail("%v", err)
	}
	spent, wall := b.cpu()-cpu, time.Since(began)
	if _, peak := b.own[0].resident(); peak-before > hostGrowth {
		at.fail("the service grew by %d MiB", (peak-before)>>20)
	}
	if at.hostCPU > 0 && spent.Seconds() > at.hostCPU*wall.Seconds()+0.2 {
		at.fail("the service spent %v of CPU in %v", spent, wall.Round(time.Millisecond))
	}
	if err == nil {
		at.judge()
	}
	at.checkHost(failures, from)
	return result{engine: b.engine, id: at.id, file: at.file, want: at.want, kind: cmp.Or(at.answer.kind, "none"), took: at.answer.took, hostCPU: spent}
}

func (b *battery) cpu() (sum time.Duration) {
	for _, p := range b.own {
		sum += p.cpu()
	}
	return sum
}

// judge compares the answer with what was to be expected.
func (at *attempt) judge() {
	a := &at.answer
	if !slices.Contains(at.want, a.kind) {
		at.fail("ended as %s (%.500s), want %s", a.kind, a.detail, strings.Join(at.want, " or "))
	}
	if most := at.deadline() + grace + at.pulse.slack(time.Now().Add(-a.took)); a.took > most {
		at.fail("answered after %v, which is later than %v", a.took.Round(time.Millisecond), most)
	}
	if len(a.excess) > 0 {
		at.fail("something came behind the answer: %.200q", a.excess)
	}
	if at.after != nil && slices.Contains(at.want, a.kind) {
		at.wrong = append(at.wrong, at.after(at)...)
	}
}

// checkHost looks at what is not the attacker's. failures and from say what had been there before.
func (at *attempt) checkHost(failures, from int) {
	b := at.battery
	for _, p := range b.own {
		if !p.alive() {
			at.fail("the %s is not the same process any more", p.name)
		}
	}
	noticed, _ := b.canary.complaints(failures)
	for _, n := range noticed {
		at.fail("the canary noticed: %s", n)
	}
	if !b.planted.unchanged() {
		at.fail("the host's file is changed")
	}
	log, err := b.service.logs(at.tenant)
	if err != nil {
		at.fail("%v", err)
	}
	var head strings.Builder
	at.answer.header.Write(&head)
	at.wrong = append(at.wrong, b.leaks("the answer", head.String()+string(at.answer.body)+string(at.answer.excess))...)
	at.wrong = append(at.wrong, b.leaks("the attacker's log", log)...)
	operators := b.service.log.From(from)
	at.wrong = append(at.wrong, b.leaks("the operator's log", operators)...)
	at.wrong = append(at.wrong, wellFormed(operators)...)
}

// dispose sees to the end of the attacker's containers: by themselves where that is due, else with their tenant.
func (at *attempt) dispose(r *result) {
	b := at.battery
	if at.later != nil {
		at.wrong = append(at.wrong, at.later(at)...)
	}
	if at.gone {
		took, err := at.host.awaitGone(b.service, b.pulse, goneWithin)
		if err != nil {
			at.fail("its container was to be destroyed: %v", err)
		}
		r.gone = took
		if !at.awaitReason() {
			at.fail("the operator's log does not say why its container ended")
		}
	} else if at.stays {
		if boxes, err := b.service.boxes(at.tenant); err != nil || !holds(boxes, at.container) {
			at.fail("its container was to stay, but there are %v, %v", boxes, err)
		}
	}
	if boxes, err := b.service.boxes(""); err != nil {
		at.fail("%v", err)
	} else {
		for _, x := range boxes {
			if x.ID == at.container && x.Tenant != at.tenant {
				at.fail("its container is tenant %q's now", x.Tenant)
			}
		}
	}
	if err := b.service.operator("DELETE", "/v1/tenants/"+at.tenant, "", nil, nil); err != nil {
		at.fail("%v", err)
		return
	}
	if _, err := at.host.awaitGone(b.service, b.pulse, goneWithin); err != nil {
		at.fail("after its tenant was deleted: %v", err)
	}
	if boxes, err := b.service.boxes(at.tenant); err != nil || len(boxes) > 0 {
		at.fail("after its tenant was deleted: containers %v, %v", boxes, err)
	}
	if at.last != nil {
		at.wrong = append(at.wrong, at.last(at)...)
	}
}

// awaitReason waits until the operator's log says why the container was recycled: soon after it is gone.
func (at *attempt) awaitReason() bool {
	for end := time.Now().Add(goneWithin); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for line := range strings.Lines(about(&at.service.log, at.container)) {
			if strings.Contains(line, `"container recycled"`) && strings.Contains(line, `"cause":`) {
				return true
			}
		}
	}
	return false
}

func holds(boxes []box, id string) bool {
	return slices.ContainsFunc(boxes, func(x box) bool { return x.ID == id && x.State == "assigned" })
}

func (b *battery) add(r result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.results = append(b.results, r)
}
