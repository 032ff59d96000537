// Command testsum reads the output of `go test -json`, prints what failed with its output, what was skipped, the slowest
// packages, and one line of totals. It exits 1 if anything failed. It runs no tests. With -again it prints instead the tests
// that deserve a second look alone, "package test" a line: see again.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// mostAgain is the number of failed tests up to which a busy machine may be to blame.
const mostAgain = 3

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type key struct{ pkg, test string }

type summary struct {
	pass, fail, skip int
	output           map[key][]string
	failed, skipped  []key
	packages         map[string]float64 // seconds
	broken           []string           // packages that failed without a failing test
}

func main() {
	in, args := io.Reader(os.Stdin), os.Args[1:]
	again := len(args) > 0 && args[0] == "-again"
	if again {
		args = args[1:]
	}
	if len(args) > 0 {
		f, err := os.Open(args[0])
		if err != nil {
			fmt.Fprintln(os.Stderr, "testsum:", err)
			os.Exit(2)
		}
		defer f.Close()
		in = f
	}
	s := read(in)
	if again {
		for _, k := range s.again() {
			fmt.Println(k.pkg, k.test)
		}
		return
	}
	s.print(os.Stdout)
	if s.fail > 0 || s.pass == 0 {
		os.Exit(1)
	}
}

func read(r io.Reader) *summary {
	s := &summary{output: map[key][]string{}, packages: map[string]float64{}}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var e event
		if json.Unmarshal(sc.Bytes(), &e) == nil {
			s.add(e)
		}
	}
	return s
}

func (s *summary) add(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "output":
		s.output[k] = append(s.output[k], e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	if e.Test == "" {
		s.packages[e.Package] = e.Elapsed
		if e.Action == "fail" && !slices.ContainsFunc(s.failed, func(f key) bool { return f.pkg == e.Package }) {
			s.broken = append(s.broken, e.Package)
			s.fail++
		}
		return
	}
	switch e.Action {
	case "pass":
		s.pass++
		delete(s.output, k)
	case "fail":
		s.fail++
		s.failed = append(s.failed, k)
	case "skip":
		s.skip++
		s.skipped = append(s.skipped, k)
	}
}

// again returns the failed tests, without their subtests, if a machine that was too busy can be why: few failed, every package
// came to its end, and there was neither a data race nor a panic. A second run could only hide those.
func (s *summary) again() []key {
	var tests []key
	for _, k := range s.failed {
		for _, line := range s.output[k] {
			if strings.Contains(line, "DATA RACE") || strings.Contains(line, "race detected") || strings.HasPrefix(line, "panic:") {
				return nil
			}
		}
		root, _, _ := strings.Cut(k.test, "/")
		if k = (key{k.pkg, root}); !slices.Contains(tests, k) {
			tests = append(tests, k)
		}
	}
	if len(tests) > mostAgain || len(s.broken) > 0 {
		return nil
	}
	return tests
}

func (s *summary) print(w io.Writer) {
	for _, k := range s.failed {
		fmt.Fprintf(w, "--- FAIL %s %s\n%s", k.pkg, k.test, tail(s.output[k], 80))
	}
	for _, p := range s.broken {
		fmt.Fprintf(w, "--- FAIL %s\n%s", p, tail(s.output[key{pkg: p}], 80))
		for _, k := range s.unfinished(p) {
			fmt.Fprintf(w, "--- UNFINISHED %s %s\n%s", k.pkg, k.test, tail(s.output[k], 80))
		}
	}
	for _, k := range s.skipped {
		fmt.Fprintf(w, "--- SKIP %s %s\n%s", k.pkg, k.test, tail(s.output[k], 5))
	}
	type timed struct {
		pkg string
		sec float64
	}
	var slow []timed
	for p, sec := range s.packages {
		slow = append(slow, timed{p, sec})
	}
	slices.SortFunc(slow, func(a, b timed) int { return cmp.Compare(b.sec, a.sec) })
	for i, t := range slow {
		if i == 8 || t.sec < 5 {
			break
		}
		fmt.Fprintf(w, "  %6.1f s  %s\n", t.sec, t.pkg)
	}
	fmt.Fprintf(w, "go: %d passed, %d failed, %d skipped\n", s.pass, s.fail, s.skip)
}

// unfinished returns the tests of a package that began and never ended: what ended the process has been printed as theirs.
func (s *summary) unfinished(pkg string) []key {
	var all []key
	for k := range s.output {
		if k.pkg == pkg && k.test != "" && !slices.Contains(s.failed, k) && !slices.Contains(s.skipped, k) {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b key) int { return cmp.Compare(a.test, b.test) })
	return all
}

func tail(lines []string, n int) string {
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "")
}
