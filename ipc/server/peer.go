package server

import (
	"context"
	"net"
	"os"
	"syscall"
)

// A Peer is the process at the other end, as it was when it connected. Its
// PID is for the audit line only: any program of the same user can run the
// helper, so nothing is decided by it.
type Peer struct {
	PID int
	UID int
}

type peerKey struct{}

// PeerOf is the peer of the request whose context is ctx.
func PeerOf(ctx context.Context) Peer {
	p, _ := ctx.Value(peerKey{}).(Peer)
	return p
}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	if g, ok := c.(*guarded); ok {
		return context.WithValue(ctx, peerKey{}, g.peer)
	}
	return ctx
}

// guard lets peers of our own user through. Others are refused even though
// the directory is 0700 and the socket 0600: modes can be changed by hand.
type guard struct {
	net.Listener
	refused func(Peer)
}

type guarded struct {
	net.Conn
	peer Peer
}

// Read leaves nothing in p beside what it read: net/http hands buffers on from
// one connection to the next, and the last one may have brought a login.
func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	clear(p[max(n, 0):])
	return n, err
}

func (g *guard) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer, err := peerCredentials(c)
		if err == nil && peer.UID == os.Getuid() {
			return &guarded{c, peer}, nil
		}
		_ = c.Close()
		if g.refused != nil {
			g.refused(peer)
		}
	}
}

func peerCredentials(c net.Conn) (Peer, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return Peer{UID: -1}, syscall.ENOTSOCK
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return Peer{UID: -1}, err
	}
	peer := Peer{UID: -1}
	var credErr error
	err = raw.Control(func(fd uintptr) { peer, credErr = socketPeer(int(fd)) })
	if err != nil {
		return peer, err
	}
	return peer, credErr
}
