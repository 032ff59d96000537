package oci_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"paddock/internal/tenant"
	"paddock/internal/testenv"
	"paddock/pool"
	"paddock/pool/enginetest"
	"paddock/pool/oci"
	"paddock/pool/oci/keeper"
)

// keeperCommand makes the test binary be the keeper, which in production is a command of the controller's binary.
const keeperCommand = "be-the-keeper"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == keeperCommand {
		if err := keeper.Main(context.Background(), os.Args[2:], nil); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func newEngine(iso tenant.Isolation, binary string) func(*testing.T, enginetest.State) pool.Engine {
	return func(t *testing.T, s enginetest.State) pool.Engine {
		t.Helper()
		e, err := oci.New(t.Context(), options(t, iso, binary, s))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
}

func options(t *testing.T, iso tenant.Isolation, binary string, s enginetest.State) oci.Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return oci.Options{
		Runtime: testenv.Binary(t, binary), Isolation: iso, StateDir: s.Dir, ControllerID: s.ControllerID,
		MemoryBudgetBytes: s.MemoryBudgetBytes, Keeper: []string{self, keeperCommand}, LockFile: s.LockFile,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
}

func TestRuncContract(t *testing.T) {
	enginetest.Run(t, enginetest.Options{New: newEngine(tenant.IsolationRunc, "runc")})
}

func TestGVisorContract(t *testing.T) {
	enginetest.Run(t, enginetest.Options{New: newEngine(tenant.IsolationGVisor, "runsc")})
}
