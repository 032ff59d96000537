// Command bench measures Paddock against a bare, unsandboxed node server in one run with interleaved rounds, prints a
// table of figures beside their bars, and exits 1 if a bar is missed. Absolute figures drift from machine to machine and
// hour to hour: the ratios are medians over rounds. Load stays on loopback and is bounded in time.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	binary    string
	dir       string
	cache     string
	rounds    int
	burst     time.Duration
	only      string
	isolation string // of the sections that look at it
	rows      []row
	started   time.Time
}

// row is one figure and its bar.
type row struct {
	what, got, bar string
	ok             bool
}

func main() {
	b := &bench{started: time.Now()}
	flag.StringVar(&b.binary, "paddock", "bin/paddock", "the paddock binary")
	flag.StringVar(&b.cache, "cache", ".cache/downloads", "directory that keeps downloads from run to run")
	flag.IntVar(&b.rounds, "rounds", 9, "rounds of warm load")
	flag.DurationVar(&b.burst, "burst", 2*time.Second, "length of one burst of load")
	flag.StringVar(&b.only, "only", "", "run only sections whose name contains this: warm, new, etcd, cold, tenants, pipeline, activate, catalogue, hop, crowd, bodies; or overload, fair, floods, wire, which only their names run")
	flood := flag.Bool("flood", false, "be the flood of a section, which starts it itself")
	wired := flag.String("wired", "", "be the other process of the wire section, which starts it itself, with the certificates in this directory")
	flag.StringVar(&b.isolation, "isolation", "", "what sections run in: gvisor, runc; overload and activate default to gvisor, hop to runc, the others to both")
	flag.Parse()
	if *flood {
		if err := floodMain(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if *wired != "" {
		if err := wireMain(*wired); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := b.run(ctx)
	missed := b.table()
	switch {
	case err != nil:
		fmt.Printf("bench: FAILED after %s: %v\n", time.Since(b.started).Round(time.Second), err)
		os.Exit(1)
	case missed > 0:
		fmt.Printf("bench: %d figures, %d missed, %s\n", len(b.rows), missed, time.Since(b.started).Round(time.Second))
		os.Exit(1)
	}
	fmt.Printf("bench: %d figures, 0 missed, %s\n", len(b.rows), time.Since(b.started).Round(time.Second))
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.binary, err = filepath.Abs(b.binary); err != nil {
		return err
	}
	if b.cache, err = filepath.Abs(b.cache); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "paddock-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := os.Chmod(b.dir, 0o711); err != nil { // sandboxes pass through it to their root file system
		return err
	}
	sections := []struct {
		name  string
		run   func(context.Context) error
		asked bool // runs only by its name: minutes of flood are not asked for by habit
	}{
		{"warm", b.warm, false}, {"new", b.newTenant, false}, {"etcd", b.etcd, false}, {"cold", b.cold, false}, {"tenants", b.tenants, false},
		{"pipeline", b.pipeline, false}, {"activate", b.activate, false}, {"catalogue", b.catalogue, false}, {"hop", b.hop, false},
		{"crowd", b.crowd, false}, {"bodies", b.bodies, false},
		{"overload", b.overload, true}, {"fair", b.fair, true}, {"floods", b.floods, true}, {"wire", b.wire, true},
	}
	for _, s := range sections {
		if !strings.Contains(s.name, b.only) || s.asked && b.only == "" {
			continue
		}
		b.progress("section %s", s.name)
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (b *bench) progress(format string, args ...any) {
	fmt.Printf("[%5s] %s\n", time.Since(b.started).Round(time.Second), fmt.Sprintf(format, args...))
}

// atLeast and atMost add a figure with its bar.
func (b *bench) atLeast(what string, got, bar float64, unit, detail string) {
	b.rows = append(b.rows, row{what, fmt.Sprintf("%.2f%s %s", got, unit, detail), fmt.Sprintf(">= %g%s", bar, unit), got >= bar})
}

func (b *bench) atMost(what string, got, bar float64, unit, detail string) {
	b.rows = append(b.rows, row{what, fmt.Sprintf("%.2f%s %s", got, unit, detail), fmt.Sprintf("<= %g%s", bar, unit), got <= bar})
}

// figure adds one that has no bar.
func (b *bench) figure(what string, got float64, unit, detail string) {
	b.rows = append(b.rows, row{what, fmt.Sprintf("%.2f%s %s", got, unit, detail), "", true})
}

func (b *bench) table() (missed int) {
	fmt.Println()
	for _, r := range b.rows {
		verdict := "ok"
		if r.bar == "" {
			verdict = ""
		}
		if !r.ok {
			verdict = "MISSED"
			missed++
		}
		fmt.Printf("%-62s %-52s %-12s %s\n", r.what, strings.TrimSpace(r.got), r.bar, verdict)
	}
	fmt.Println()
	return missed
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
