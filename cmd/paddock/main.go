// Command paddock runs untrusted code in warm sandboxes: `paddock up` is the service on one machine, the other commands
// are its clients. This package is wiring: flags, processes, signals and output; what the service does is in router,
// controller and pool.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

func main() {
	a := &app{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv,
		stdoutTTY: term.IsTerminal(int(os.Stdout.Fd())), stderrTTY: term.IsTerminal(int(os.Stderr.Fd())),
	}
	os.Exit(a.main(os.Args[1:]))
}

// app is what every command shares: the streams, the environment and the connection flags. Tests make their own.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	stdoutTTY      bool // human output rather than plain
	stderrTTY      bool

	conn    connFlags
	jsonOut bool
}

// main runs one command line and returns the exit code. Ctrl-C ends client commands; long-lived commands take over the
// signals they handle themselves.
func (a *app) main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := a.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(context.WithValue(ctx, stopKey{}, stop))
	if err == nil {
		return exitOK
	}
	var e *exitError
	if !errors.As(err, &e) { // cobra's own: unknown command or flag, wrong number of arguments
		e = usageError("%w\nrun 'paddock help' for the commands, 'paddock COMMAND --help' for one of them", err)
	}
	if !e.silent {
		fmt.Fprintf(a.stderr, "paddock: %s\n", a.safeText(e.Error()))
	}
	return e.code
}

// stopKey finds in a command's context the function that gives the signals back to whoever asks for them next.
type stopKey struct{}
