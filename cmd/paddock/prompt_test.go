package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"paddock/internal/testenv"

	"golang.org/x/sys/unix"
)

// TestPromptWithoutEcho: at a terminal the value is asked for, and what is typed does not appear there.
func TestPromptWithoutEcho(t *testing.T) {
	keyboard, screen := terminal(t)
	var stderr testenv.Log
	a := &app{stdin: screen, stderr: &stderr}
	type answer struct {
		value string
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		v, err := a.readSecret("KEY", "", false)
		answered <- answer{v, err}
	}()
	testenv.Await(t, "the terminal does not echo", func() bool {
		settings, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS)
		return err == nil && settings.Lflag&unix.ECHO == 0
	})
	if _, err := keyboard.WriteString("typed-value\n"); err != nil {
		t.Fatal(err)
	}
	if got := <-answered; got.value != "typed-value" || got.err != nil {
		t.Errorf("%q, %v", got.value, got.err)
	}
	if !strings.Contains(stderr.String(), "value of KEY") {
		t.Errorf("it asks %q", stderr.String())
	}
	if _, err := screen.WriteString("end"); err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	buf := make([]byte, 256)
	for !strings.Contains(shown.String(), "end") {
		n, err := keyboard.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		shown.Write(buf[:n])
	}
	if strings.Contains(shown.String(), "typed") {
		t.Errorf("the terminal shows %q", shown.String())
	}
}

// terminal makes a pseudo-terminal: what is written to keyboard is typed, what is shown can be read from it.
func terminal(t *testing.T) (keyboard, screen *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	time.AfterFunc(20*time.Second, func() { screen.Close(); keyboard.Close() }) // nothing of this may wait for ever
	return keyboard, screen
}
