package main

import (
	"strings"
	"testing"
)

func TestTotals(t *testing.T) {
	s := read(strings.NewReader(strings.Join([]string{
		`{"Action":"run","Package":"p","Test":"TestA"}`,
		`{"Action":"pass","Package":"p","Test":"TestA"}`,
		`{"Action":"output","Package":"p","Test":"TestB","Output":"b_test.go:1: wrong\n"}`,
		`{"Action":"fail","Package":"p","Test":"TestB"}`,
		`{"Action":"skip","Package":"p","Test":"TestC"}`,
		`{"Action":"fail","Package":"p","Elapsed":7.5}`,
		`not json`,
		`{"Action":"output","Package":"q","Output":"does not compile\n"}`,
		`{"Action":"run","Package":"q","Test":"TestD"}`,
		`{"Action":"output","Package":"q","Test":"TestD","Output":"panic: at once\n"}`,
		`{"Action":"fail","Package":"q","Elapsed":0}`,
	}, "\n")))
	var out strings.Builder
	s.print(&out)
	for _, want := range []string{"go: 1 passed, 2 failed, 1 skipped", "b_test.go:1: wrong", "does not compile", "--- UNFINISHED q TestD\npanic: at once", "--- SKIP p TestC", "7.5 s  p"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

// TestAgain: what a second run could hide is never run again.
func TestAgain(t *testing.T) {
	fail := func(test, output string) string {
		return `{"Action":"output","Package":"p","Test":"` + test + `","Output":"` + output + `"}` + "\n" +
			`{"Action":"fail","Package":"p","Test":"` + test + `"}` + "\n"
	}
	for in, want := range map[string]int{
		fail("TestA/slow", "took 3 s") + fail("TestA", ""):                                         1,
		fail("TestA", "WARNING: DATA RACE\\n"):                                                     0,
		fail("TestA", "x") + fail("TestB", "testing.go:1: race detected during execution of test"): 0,
		fail("TestA", "panic: nil map\\n"):                                                         0,
		fail("TestA", "") + fail("TestB", "") + fail("TestC", "") + fail("TestD", ""):              0,
		fail("TestA", "") + `{"Action":"fail","Package":"q"}`:                                      0,
		`{"Action":"pass","Package":"p","Test":"TestA"}`:                                           0,
	} {
		if got := read(strings.NewReader(in)).again(); len(got) != want || want == 1 && got[0] != (key{"p", "TestA"}) {
			t.Errorf("%d, want %d, of\n%s", len(got), want, in)
		}
	}
}
