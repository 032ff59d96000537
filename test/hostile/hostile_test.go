package hostile

import (
	"embed"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

//go:embed attacks/*.js
var attackFiles embed.FS

var (
	onlyEngine = flag.String("hostile.engine", "", "one engine: oci/gvisor, oci/runc or docker/runc")
	only       = flag.String("hostile.attack", "", "attacks whose id begins so; several with commas")
	tableFile  = flag.String("hostile.table", "", "write the table here as well")
)

var engines = []engine{{"oci", "gvisor"}, {"oci", "runc"}, {"docker", "runc"}}

// representative stand for their groups where not the whole battery is run.
var representative = []string{"A1", "A5 child", "B2 buffer", "B3", "C1", "C4 native", "D5", "D6", "E2 never opened", "E3 twice", "E7 huge",
	"E10 crlf", "S1", "N1", "N6", "H1", "H3", "H5", "R1 memory", "R3 crash", "E control", "B control"}

// attacks is the whole battery, group by group.
func attacks() []*attack {
	var list []*attack
	for _, group := range [][]attack{cpuAttacks, memoryAttacks, processAttacks, fileAttacks, answerAttacks, socketAttacks, networkAttacks, kernelAttacks,
		callerAttacks} {
		for i := range group {
			list = append(list, &group[i])
		}
	}
	return list
}

// wanted says whether this run is to try an attack.
func wanted(id string) bool {
	if *only != "" {
		return slices.ContainsFunc(strings.Split(*only, ","), func(p string) bool { return strings.HasPrefix(id, p) })
	}
	return whole || slices.Contains(representative, id)
}

// Every attack is stopped on every engine, and nobody else notices.
func TestHostileCode(t *testing.T) {
	out := io.Writer(os.Stdout)
	if *tableFile != "" {
		f, err := os.Create(*tableFile)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		out = io.MultiWriter(out, f)
	}
	var results []result
	began := time.Now()
	for _, e := range engines {
		if *onlyEngine != "" && *onlyEngine != e.String() {
			continue
		}
		before := len(results)
		passed := t.Run(strings.ReplaceAll(e.String(), "/", "-"), func(t *testing.T) { assault(t, e, out, &results) })
		if len(results) == before || !passed && !slices.ContainsFunc(results[before:], func(r result) bool { return !r.stopped() }) {
			results = append(results, result{engine: e, id: "engine", sort: check, kind: "failed", wrong: []string{"see the test's output"}})
		}
	}
	fmt.Fprintln(out)
	for _, e := range engines {
		figures(out, e, results)
	}
	fmt.Fprintln(out, summary(results, time.Since(began)))
}

// assault runs the battery on one engine. What has come out so far is in results whatever happens.
func assault(t *testing.T, e engine, out io.Writer, results *[]result) {
	b := newBattery(t, e)
	defer func() {
		b.ends.Wait()
		table(out, b.results)
		*results = append(*results, b.results...)
	}()
	b.calm()
	group := ""
	for _, a := range attacks() {
		if !a.runsOn(e) || !wanted(a.id) {
			continue
		}
		if group != a.group() {
			b.endGroup(group)
			group = a.group()
		}
		b.run(a)
	}
	b.endGroup(group)
	for _, c := range controls {
		if c.runsOn(e) && wanted(c.id) {
			b.control(c)
		}
	}
	b.endGroup("controls")
	b.checkCalm()
	if b.afterRestart() {
		b.endGroup("R")
	}
	for _, r := range b.results {
		if !r.stopped() {
			t.Errorf("%v %s (%s): %s\n%s", e, r.id, r.file, strings.Join(r.wrong, "\n\t"), r.story)
		}
	}
}

// calm looks at the service and the canary before the first attack: what comes later is compared with it. Other tenants
// come and go meanwhile, as they will then, and mean no harm.
func (b *battery) calm() {
	b.canary.lap()
	for i := range peaceful {
		b.run(&attack{id: fmt.Sprintf("calm %d", i), file: "e0-echo.js", input: in("echo", i), want: answered, stays: true, peaceful: true, limit: 5 * time.Second})
		time.Sleep(peace)
	}
	b.ends.Wait()
	b.base = b.canary.lap()
	b.add(result{engine: b.engine, id: "canary calm", sort: check, kind: b.base.String()})
	var err error
	if b.before, err = b.gauges(); err != nil {
		b.t.Fatal(err)
	}
}

// endGroup compares how the canary fared while a group of attacks ran with how it fares without.
func (b *battery) endGroup(group string) {
	b.ends.Wait()
	l := b.canary.lap()
	if group == "" || l.calls == 0 {
		return
	}
	r := result{engine: b.engine, id: "canary " + group, sort: check, kind: l.String()}
	if most := l.bound(b.base); l.p99 > most && l.spare >= enoughSpare && group != "controls" {
		r.wrong = append(r.wrong, fmt.Sprintf("its calls had a p99 of %v, more than %v", l.p99, most))
	}
	if l.failures > 0 {
		r.wrong = append(r.wrong, fmt.Sprintf("%d of its calls failed", l.failures))
	}
	b.add(r)
}
