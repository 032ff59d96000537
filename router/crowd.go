package router

import (
	"fmt"
	"net/netip"
	"sync"
)

// crowd counts what is there at once, by the address that it came from, and bounds it by address and in all. It is what
// holds before anybody has shown a credential. Safe for concurrent use.
type crowd struct {
	max, perAddress int

	mu     sync.Mutex
	all    int
	counts map[netip.Prefix]int // no address with none
}

// Why a crowd takes no more.
const (
	crowdFull    = "total"
	crowdAddress = "address"
)

func newCrowd(most, perAddress int) *crowd {
	return &crowd{max: most, perAddress: perAddress, counts: map[netip.Prefix]int{}}
}

// enter takes one from remote ("ip:port"). leave gives it back, once, however often it is called; why is "" or the reason
// for which there is no room.
func (c *crowd) enter(remote string) (leave func(), why string) {
	from := origin(remote)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.all >= c.max:
		return nil, crowdFull
	case c.counts[from] >= c.perAddress:
		return nil, crowdAddress
	}
	c.all++
	c.counts[from]++
	return sync.OnceFunc(func() { c.leave(from) }), ""
}

func (c *crowd) leave(from netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.counts[from]--; c.counts[from] == 0 {
		delete(c.counts, from)
	}
}

// complaint says why there is no room for one more of what.
func (c *crowd) complaint(why, what string) string {
	if why == crowdAddress {
		return fmt.Sprintf("too many %s from this address: %d are open, as many as it may have; close some", what, c.perAddress)
	}
	return fmt.Sprintf("too many %s: %d are open, as many as this router takes; try again", what, c.max)
}

// origin is who counts as one: an IPv4 address, or the 64 bits of an IPv6 one that a single host gets. What is neither
// counts as one, too.
func origin(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := at.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}
