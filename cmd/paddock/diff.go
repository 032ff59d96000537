package main

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// diffHead stands above a difference.
const diffHead = "- expected, + answered:\n"

// diffJSON shows, line by line, where two JSON texts differ; "" if they say the same.
func diffJSON(want, got []byte) string {
	var w, g any
	if err := json.Unmarshal(want, &w); err != nil {
		return "expected is not JSON: " + err.Error()
	}
	if err := json.Unmarshal(got, &g); err != nil {
		return "the value is not JSON: " + err.Error()
	}
	if reflect.DeepEqual(w, g) {
		return ""
	}
	a, _ := json.MarshalIndent(w, "", "  ")
	b, _ := json.MarshalIndent(g, "", "  ")
	return diffHead + diffLines(strings.Split(string(a), "\n"), strings.Split(string(b), "\n"))
}

// diffLines is a diff by the longest common subsequence, with two lines around each change.
func diffLines(a, b []string) string {
	const around, most = 2, 2000
	if len(a) > most || len(b) > most {
		return "(too long to compare line by line)"
	}
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var lines []string
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			lines = append(lines, "  "+a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			lines = append(lines, "- "+a[i])
			i++
		default:
			lines = append(lines, "+ "+b[j])
			j++
		}
	}
	var out []string
	for i, line := range lines {
		near := lines[max(0, i-around):min(len(lines), i+around+1)]
		if slices.ContainsFunc(near, func(l string) bool { return l[0] != ' ' }) {
			out = append(out, line)
		} else if len(out) > 0 && out[len(out)-1] != "  …" {
			out = append(out, "  …")
		}
	}
	return strings.Join(out, "\n")
}
