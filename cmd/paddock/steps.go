package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"paddock/internal/call"
	pb "paddock/proto/paddock/v1"
)

// stepsText shows what became of the steps of a pipeline, one a line, with what they logged.
func (a *app) stepsText(all []*pb.StepResult) string {
	if len(all) == 0 {
		return ""
	}
	var rows [][]string
	for _, s := range all {
		name := s.GetFunction()
		if s.GetVersion() > 0 {
			name += fmt.Sprintf("@%d", s.GetVersion())
		}
		outcome := strings.ReplaceAll(s.GetOutcome(), "_", " ")
		if s.GetFallback() > 0 {
			outcome += fmt.Sprintf(" (%s@%d)", s.GetFunction(), s.GetFallback())
		}
		took := "-"
		if s.GetOutcome() != string(call.StepDisabled) {
			took = brief(time.Duration(s.GetRunUs()) * time.Microsecond)
		}
		row := []string{"step", name, outcome, took}
		if e := s.GetError(); e != nil {
			text, _, _ := strings.Cut(stepError(e), "\n")
			row = append(row, a.safeText(text))
		}
		rows = append(rows, row)
	}
	var b bytes.Buffer
	_ = table(&b, rows)
	var out strings.Builder
	for i, line := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
		fmt.Fprintln(&out, line)
		if i >= len(all) {
			continue
		}
		for _, l := range all[i].GetLogs() {
			fmt.Fprintf(&out, "      %-5s %s\n", l.GetLevel(), a.safeText(strings.TrimSuffix(l.GetText(), "\n")))
		}
	}
	return out.String()
}

func stepError(e *pb.CallError) string {
	if th := e.GetThrown(); th != nil {
		return strings.Join(nonEmpty(th.GetName(), th.GetMessage()), ": ")
	}
	return e.GetMessage()
}
