//go:build hostile

package hostile

import (
	"embed"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

//go:embed attacks/*.js
var attackFiles embed.FS

var (
	full       = flag.Bool("hostile.full", false, "the long attacks, too")
	onlyEngine = flag.String("hostile.engine", "", "one engine: oci/gvisor, oci/runc or docker/runc")
	only       = flag.String("hostile.attack", "", "attacks whose id begins so")
	tableFile  = flag.String("hostile.table", "", "write the table here as well")
)

var engines = []engine{{"oci", "gvisor"}, {"oci", "runc"}, {"docker", "runc"}}

// attacks is the whole battery. Order matters to nobody.
func attacks() []*attack {
	var list []*attack
	for _, group := range [][]attack{cpuAttacks, memoryAttacks, processAttacks, fileAttacks, answerAttacks, socketAttacks, networkAttacks, kernelAttacks} {
		for i := range group {
			list = append(list, &group[i])
		}
	}
	return list
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
		t.Run(strings.ReplaceAll(e.String(), "/", "-"), func(t *testing.T) {
			results = append(results, assault(t, e, out)...)
		})
		if n := len(results); n == 0 || results[n-1].engine != e {
			results = append(results, result{engine: e, id: "start", kind: "not run", wrong: []string{"the service did not start"}})
		}
	}
	n, median, most := ends(results)
	fmt.Fprintf(out, "\n%d poisoned containers were gone %v after the answer in the middle, %v at most; all took %v\n",
		n, median.Round(time.Millisecond), most.Round(time.Millisecond), time.Since(began).Round(time.Second))
	fmt.Fprintln(out, summary(results))
	if len(results) == 0 {
		t.Error("nothing was tried")
	}
}

// assault runs the battery on one engine.
func assault(t *testing.T, e engine, out io.Writer) []result {
	b := newBattery(t, e)
	calm, err := b.gauges()
	if err != nil {
		t.Fatal(err)
	}
	group := ""
	for _, a := range attacks() {
		if !a.runsOn(e) || a.full && !*full || !strings.HasPrefix(a.id, *only) {
			continue
		}
		if group != a.group() {
			b.endGroup(out, group)
			group = a.group()
		}
		b.run(a)
	}
	b.endGroup(out, group)
	for _, c := range controls {
		if c.runsOn(e) && strings.HasPrefix(c.id, *only) {
			b.control(c)
		}
	}
	b.ends.Wait()
	b.checkCalm(calm)
	table(out, b.results)
	for _, r := range b.results {
		if !r.stopped() {
			t.Errorf("%v %s (%s): %s\n%s", e, r.id, r.file, strings.Join(r.wrong, "\n\t"), r.story)
		}
	}
	return b.results
}

// endGroup says how the canary fared.
func (b *battery) endGroup(out io.Writer, group string) {
	b.ends.Wait()
	if calls, p99 := b.canary.lap(); group != "" {
		fmt.Fprintf(out, "%v group %s: the canary called %d times, p99 %v\n", b.engine, group, calls, p99.Round(100*time.Microsecond))
	}
}
