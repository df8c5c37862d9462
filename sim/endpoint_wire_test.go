//go:build linux

package sim

import (
	"context"
	"errors"
	"net"
	"time"
)

// wireKey leads from a request's context to its wire.
type wireKey struct{}

// Accept, Close and Addr make the endpoint a listener.
func (e *endpoint) Accept() (net.Conn, error) {
	select {
	case c := <-e.conns:
		return c, nil
	case <-e.shut:
		return nil, net.ErrClosed
	}
}

func (e *endpoint) Close() error {
	e.once.Do(func() { close(e.shut) })
	return nil
}

func (e *endpoint) Addr() net.Addr { return &net.UnixAddr{Name: "endpoint"} }

// A wire is the endpoint's side of one connection.
type wire struct {
	net.Conn
	e     *endpoint
	from  *instance
	began time.Time
	sent  time.Time     // the same by true time
	grant *login        // whose access token the next write carries
	until time.Time     // by true time: when that token expires, as the daemon counts: from the request
	reply *refreshToken // that the next write carries
}

// Write returns when the daemon has read it all: net.Pipe has no buffer. From then on the
// daemon is held to what it has read.
func (c *wire) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.e.w.model.Lock()
	defer c.e.w.model.Unlock()
	if err != nil || c.from.dead() {
		return n, err
	}
	if c.grant != nil {
		c.grant.accessIn, c.grant.accessUntil = c.from, c.until
		c.grant.accessSlept = time.Since(c.e.w.slept) < time.Minute
	}
	if t := c.reply; t != nil {
		t.readBy, t.readAt, c.reply = c.from, time.Now(), nil
		if t.replaced {
			t.login.sawRotation(time.Now())
		}
		t.login.received(t)
	}
	return n, err
}

// dial is the network of one daemon.
func (e *endpoint) dial(i *instance) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		began, sent := time.Now(), e.w.clocks.true()
		e.w.pause("dial", "", 3*time.Millisecond)
		e.mu.Lock()
		down := e.down
		e.mu.Unlock()
		if down || i.dead() {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errRefused}
		}
		theirs, ours := net.Pipe()
		i.addConn(theirs)
		select {
		case e.conns <- &wire{Conn: ours, from: i, e: e, began: began, sent: sent}:
			return theirs, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-e.shut:
			return nil, net.ErrClosed
		}
	}
}

var errRefused = errors.New("connection refused")
