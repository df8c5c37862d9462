package server

import (
	"context"
	"net"
	"syscall"
	"time"
)

// A Peer is the process at the other end, as it was when it connected. Its
// PID says whose share of the event streams one is. Otherwise it is for people to
// read: any program of the same user can run the helper.
type Peer struct {
	PID   int
	UID   int
	Since time.Time // when the connection was accepted
}

type peerKey struct{}

// PeerOf is the peer of the request whose context is ctx.
func PeerOf(ctx context.Context) Peer {
	if c := connOf(ctx); c != nil {
		return c.peer
	}
	return Peer{}
}

// connOf is the connection that the request of ctx came by, or nil.
func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(peerKey{}).(*conn)
	return c
}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, c)
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
	peer.Since = time.Now()
	if err != nil {
		return peer, err
	}
	return peer, credErr
}
