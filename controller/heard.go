package controller

import (
	"sync"

	pb "paddock/proto/paddock/v1"
)

// unheardLooks in a row without a probe, and the record says that no router reaches this controller. That is before routers, which
// probe each second, have given it up; its tenants are bound elsewhere then, and must not be given up there in its favour.
const unheardLooks = 3

// heard follows whether routers' probes arrive. Looks are counted rather than time: who was stopped itself has missed nothing.
type heard struct {
	mu    sync.Mutex
	ever  bool
	looks int // since the last probe
}

// Probed is told of every probe.
func (c *Controller) Probed() {
	c.heard.mu.Lock()
	defer c.heard.mu.Unlock()
	if c.heard.looks >= unheardLooks {
		c.log.Info("a router is heard again")
		c.membership.update(func(r *pb.ControllerRecord) { r.Unheard = false })
	}
	c.heard.ever, c.heard.looks = true, 0
}

// listen is called each second.
func (c *Controller) listen() {
	c.heard.mu.Lock()
	defer c.heard.mu.Unlock()
	if !c.heard.ever {
		return
	}
	if c.heard.looks++; c.heard.looks == unheardLooks {
		c.log.Warn("no router is heard: others keep what they have of tenants that are here")
		c.membership.update(func(r *pb.ControllerRecord) { r.Unheard = true })
	}
}
