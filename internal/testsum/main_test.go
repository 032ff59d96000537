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
		`{"Action":"fail","Package":"q","Elapsed":0}`,
	}, "\n")))
	var out strings.Builder
	s.print(&out)
	for _, want := range []string{"go: 1 passed, 2 failed, 1 skipped", "b_test.go:1: wrong", "does not compile", "--- SKIP p TestC", "7.5 s  p"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}
