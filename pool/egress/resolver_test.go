package egress

import (
	"context"
	"testing"
)

// TestHostsFileIsAsked: an operator's own names often stand in the hosts file alone; localhost does everywhere.
func TestHostsFileIsAsked(t *testing.T) {
	addrs, err := newSystemResolver().LookupNetIP(context.Background(), "ip", "localhost.")
	if err != nil || len(addrs) == 0 || !addrs[0].Unmap().IsLoopback() {
		t.Fatalf("localhost is %v, %v", addrs, err)
	}
}
