package link

// Queued is how many bytes of frames wait for the socket.
func (c *Conn) Queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.w.queuedLocked()
}
