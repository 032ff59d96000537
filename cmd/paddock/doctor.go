package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"paddock/cmd/paddock/doctor"
	"paddock/internal/config"
)

func (a *app) doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "doctor", Short: "Say what this machine can do, and what is too old, missing or unsafe", Args: args(),
		Long: `Look at this machine: kernel, control groups, runtimes, Docker, disk, memory, and the settings that matter for running
other people's code. Changes nothing. Exits 3 if something that is needed is bad.`,
		Example: `  paddock doctor
  paddock doctor --engine docker --isolation runc --json`,
	}
	cfg := config.Defaults()
	f := c.Flags()
	f.StringVar(&cfg.DataDir, "data-dir", cfg.DataDir, "where the service would keep its data")
	f.StringVar(&cfg.Engine, "engine", cfg.Engine, "engine that shall be used: oci or docker")
	f.StringVar(&cfg.Isolation, "isolation", cfg.Isolation, "isolation that shall be used: gvisor or runc")
	f.StringVar(&cfg.Runtime, "runtime", "", "path of runsc or runc (default: beside paddock, then PATH)")
	f.BoolVar(&a.jsonOut, "json", false, "print JSON for scripts")
	c.RunE = runE(func(cmd *cobra.Command, _ []string) error {
		if err := cfg.Check(); err != nil {
			return usageError("%w", err)
		}
		a.dockerHost(&cfg)
		facts := doctor.ThisHost(cfg.DataDir, cfg.Engine, cfg.Isolation, findVersion(cfg), askDocker(cfg)).Look(cmd.Context())
		if err := a.printFacts(facts); err != nil {
			return err
		}
		if doctor.Worst(facts) == doctor.Bad {
			return &exitError{code: exitPlatform, err: fmt.Errorf("this machine lacks what is needed"), silent: true}
		}
		return nil
	})
	return c
}

func (a *app) printFacts(facts []doctor.Fact) error {
	if a.jsonOut {
		return a.printJSON(map[string]any{"verdict": doctor.Worst(facts), "facts": facts})
	}
	width := 0
	for _, f := range facts {
		width = max(width, len(f.Name))
	}
	for _, f := range facts {
		fmt.Fprintf(a.stdout, "%s  %-*s  %s\n", a.mark(f.Verdict), width, f.Name, f.Value)
		if f.Advice != "" {
			fmt.Fprintf(a.stdout, "      %s  %s\n", strings.Repeat(" ", width), f.Advice)
		}
	}
	return nil
}

// mark is the verdict, coloured on a terminal.
func (a *app) mark(v doctor.Verdict) string {
	text := fmt.Sprintf("%-4s", v)
	if !a.stdoutTTY {
		return text
	}
	color := map[doctor.Verdict]string{doctor.OK: "32", doctor.Warn: "33", doctor.Bad: "31"}[v]
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}
