package fake_test

import (
	"testing"

	"paddock/pool"
	"paddock/pool/enginetest"
	"paddock/pool/fake"
	"paddock/runtimes"
)

func TestContract(t *testing.T) {
	enginetest.Run(t, enginetest.Options{
		New:         func(*testing.T, enginetest.State) pool.Engine { return fake.New(fake.Options{}) },
		Image:       func(*testing.T) runtimes.Image { return runtimes.Image{Runtime: "node", Digest: "fake"} },
		NoProcesses: true,
	})
}
