package server

import "golang.org/x/sys/unix"

// Write notes an answer to half a request, and one that waits for its peer.
func (c *conn) Write(p []byte) (int, error) {
	c.beginWrite()
	defer c.endWrite()
	return c.Conn.Write(p)
}

func (c *conn) beginWrite() {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	switch {
	case c.ended || c.stream:
	case c.place != nil:
		c.refused = true
		c.guard.changed.Broadcast()
	default:
		c.unread = true
		c.oweLocked()
	}
}

func (c *conn) endWrite() {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	if c.unread && !c.ended {
		c.guard.owing.Remove(c.place)
		c.place = nil
	}
	c.unread = false
}

// setStream exempts the answer from making room.
func (c *conn) setStream() {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	c.stream = true
}

// stuckLocked reports whether nothing goes on before the peer has acted.
func (c *conn) stuckLocked() bool {
	if c.unread {
		return c.full()
	}
	return c.silent()
}

// full reports whether the socket takes no more before its peer has read.
func (c *conn) full() bool {
	full := false
	_ = c.raw.Control(func(fd uintptr) { // fails if it is closed, which needs no help
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(poll, 0)
		full = n == 0 && err == nil
	})
	return full
}
