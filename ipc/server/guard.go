package server

import (
	"container/list"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bloq-agent/userns"
)

const (
	maxConns    = 512 // however many descriptors there are
	reservedFDs = 24  // descriptors for everything but callers
	// grace is how long a connection may be silent before it can be closed for
	// another: a caller that has just connected is about to write, on a busy
	// machine too. Those who say nothing must not keep the others waiting for as
	// long: see patience.
	grace      = 250 * time.Millisecond
	leastGrace = 20 * time.Millisecond
	// sendBuffer is how much of an answer the kernel may hold, enough for a long
	// token. Its usual 208 KiB would let a peer that never reads have a hundred
	// answers made, and 512 of them use up the memory of the unit. It also wakes a
	// writer only once most of the buffer is empty, so a peer that reads slowly
	// would look like one that does not read.
	sendBuffer = 8 << 10
	// acceptPause is how long after a failure the listener is left alone.
	acceptPause = 10 * time.Millisecond
)

// MaxConns is how many connections are held at the same time.
func MaxConns() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur >= maxConns+reservedFDs {
		return maxConns
	}
	return max(1, int(r.Cur)-reservedFDs)
}

// A guard lets peers of our own user through, and no others: not even though
// the directory is 0700 and the socket 0600, for modes can be changed by hand,
// and not root, which has no business here.
//
// It holds at most limit connections. For one more it closes the one that has
// owed a request, or has not read its answer, for the longest; if all of them are
// being answered, the new one waits.
type guard struct {
	net.Listener
	limit int
	hooks Hooks
	turns atomic.Uint64 // of the loop that accepts

	mu      sync.Mutex
	changed *sync.Cond // a connection ended, or one came to owe a request
	open    int
	owing   *list.List // of *conn: those whose peer must act, oldest first
	closed  bool
}

func newGuard(l net.Listener, hooks Hooks) *guard {
	g := &guard{Listener: l, limit: MaxConns(), hooks: hooks, owing: list.New()}
	g.changed = sync.NewCond(&g.mu)
	return g
}

func (g *guard) Accept() (net.Conn, error) {
	for {
		g.turns.Add(1)
		c, err := g.Listener.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) { // nudged
			_ = setDeadline(g.Listener, time.Time{})
			continue
		}
		if err != nil {
			if !g.survives(err) {
				return nil, err
			}
			continue
		}
		peer, err := peerCredentials(c)
		if err != nil || peer.UID != os.Getuid() || userns.Unknown(uint32(peer.UID)) {
			_ = c.Close()
			if g.hooks.Refused != nil {
				g.hooks.Refused(peer)
			}
			continue
		}
		guarded, err := g.admit(c, peer)
		if err != nil {
			_ = c.Close()
			return nil, err
		}
		return guarded, nil
	}
}

// nudge makes an Accept that waits for a peer turn once. A listener without deadlines
// counts as turning.
func (g *guard) nudge() {
	if setDeadline(g.Listener, time.Unix(1, 0)) != nil {
		g.turns.Add(1)
	}
}

func setDeadline(l net.Listener, t time.Time) error {
	if l, ok := l.(interface{ SetDeadline(time.Time) error }); ok {
		return l.SetDeadline(t)
	}
	return errors.ErrUnsupported
}

// survives reports whether to go on after err. net/http would end the server
// at ENOBUFS and ENOMEM.
func (g *guard) survives(err error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, final := range []error{net.ErrClosed, syscall.EBADF, syscall.EINVAL, syscall.ENOTSOCK, syscall.EOPNOTSUPP} {
		if g.closed || errors.Is(err, final) {
			return false
		}
	}
	if g.hooks.Trouble != nil {
		g.hooks.Trouble(err)
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		g.closeOldestLocked(0)
	}
	g.waitLocked(acceptPause)
	return !g.closed
}

// admit makes room for c.
func (g *guard) admit(c net.Conn, peer Peer) (*conn, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, syscall.ENOTSOCK
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	_ = raw.Control(func(fd uintptr) { // if this fails the buffer is only larger
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, sendBuffer)
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.open >= g.limit && !g.closed {
		g.turns.Add(1)
		if !g.closeOldestLocked(g.patienceLocked()) {
			g.waitLocked(leastGrace)
		}
	}
	if g.closed {
		return nil, net.ErrClosed
	}
	g.open++
	admitted := &conn{Conn: c, raw: raw, peer: peer, guard: g}
	admitted.oweLocked()
	return admitted, nil
}

// patienceLocked is grace where the room is full of callers that are being
// answered. Where it is full of those who say nothing it is less, and the less the
// smaller the room is.
func (g *guard) patienceLocked() time.Duration {
	least := max(leastGrace, grace*2/5*time.Duration(g.limit)/maxConns)
	answering := g.open - g.owing.Len()
	return least + (grace-least)*time.Duration(answering)/time.Duration(g.limit)
}

// waitLocked waits for a change, but not longer than d.
func (g *guard) waitLocked(d time.Duration) {
	timer := time.AfterFunc(d, g.changed.Broadcast)
	defer timer.Stop()
	g.changed.Wait()
}

// closeOldestLocked closes the connection whose peer has owed something for the
// longest, and at least for as long as patience; or one whose request was refused
// before it was whole, for which net/http would wait half a second.
func (g *guard) closeOldestLocked(patience time.Duration) bool {
	for e := g.owing.Front(); e != nil; e = e.Next() {
		c := e.Value.(*conn)
		if c.refused || time.Since(c.owes) >= patience && c.stuckLocked() {
			c.endLocked()
			_ = c.Conn.Close() // its goroutine sees that and ends
			return true
		}
	}
	return false
}

// Close wakes an Accept that waits for room, too.
func (g *guard) Close() error {
	g.mu.Lock()
	g.closed = true
	g.changed.Broadcast()
	g.mu.Unlock()
	return g.Listener.Close()
}

// A conn is a connection of our own user.
type conn struct {
	net.Conn
	raw   syscall.RawConn
	peer  Peer
	guard *guard

	// guard.mu guards these.
	place *list.Element // in guard.owing; nil while a request is answered
	owes  time.Time     // since when its peer has owed a request, or has not read
	ended bool
	// refused: it was answered before its request was whole.
	refused bool
	unread  bool // a part of the answer is being written
	stream  bool // the answer is a Stream, which may wait for its peer

	reading sync.Mutex // guards waits, and what is in the socket while it is held
	waits   bool       // the last read found nothing
}

func (c *conn) oweLocked() {
	c.owes = time.Now()
	c.place = c.guard.owing.PushBack(c)
	c.guard.changed.Broadcast()
}

func (c *conn) endLocked() {
	if c.ended {
		return
	}
	c.ended = true
	c.guard.open--
	if c.place != nil {
		c.guard.owing.Remove(c.place)
	}
	c.guard.changed.Broadcast()
}

// complete says that a whole request has come, which protects the connection
// until owe. It reports false if that is too late.
func (c *conn) complete() bool {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	if c.ended {
		return false
	}
	if c.place != nil {
		c.guard.owing.Remove(c.place)
		c.place = nil
	}
	return true
}

// owe says that the answer has gone out.
func (c *conn) owe() {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	c.stream = false
	if !c.ended && c.place == nil {
		c.oweLocked()
	}
}

// silent reports whether all that the peer sent has been taken from the socket
// and was not the whole of a request: its goroutine waits for more.
func (c *conn) silent() bool {
	c.reading.Lock()
	defer c.reading.Unlock()
	unread := 0
	_ = c.raw.Control(func(fd uintptr) { // fails if it is closed, which is silent enough
		unread, _, _ = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return c.waits && unread <= 0
}

// Read is net.Conn's, but what it takes from the socket and what silent sees
// are never out of step. Otherwise a request that has just been read could
// look like a peer that says nothing.
//
// Like it, it takes no descriptors: what a peer passes (SCM_RIGHTS) is closed
// by the kernel, because read(2) has no place for it (unix(7)).
//
// It leaves nothing in p beside what it read: net/http hands buffers on from one
// connection to the next, and the last one may have brought a login.
func (c *conn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	defer func() { clear(p[max(n, 0):]) }()
	rawErr := c.raw.Read(func(fd uintptr) bool {
		c.reading.Lock()
		defer c.reading.Unlock()
		for n, err = syscall.Read(int(fd), p); err == syscall.EINTR; {
			n, err = syscall.Read(int(fd), p)
		}
		// net/http looks for a peer that has gone with a buffer of one byte, while a
		// request is on its way to be complete.
		c.waits = err == syscall.EAGAIN && len(p) > 1
		return err != syscall.EAGAIN
	})
	switch {
	case rawErr != nil:
		return 0, rawErr
	case err != nil:
		return 0, &net.OpError{Op: "read", Net: "unix", Err: os.NewSyscallError("read", err)}
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Close makes room for another.
func (c *conn) Close() error {
	c.guard.mu.Lock()
	c.endLocked()
	c.guard.mu.Unlock()
	return c.Conn.Close()
}
