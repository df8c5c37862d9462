// Package loopback finds out which user is at the other end of a TCP connection
// within this machine. Any user may bind a free port above 1023. A program that
// sends a secret in plain HTTP to such a port must know whose it is.
//
// Of this module it imports a leaf alone.
package loopback

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"bloq-agent/userns"
)

// A Socket is one end of TCP, as the kernel lists it.
type Socket struct {
	UID   uint32 // the user that made it
	Inode uint32 // no two sockets have the same at one time
}

// An Error says why nothing was sent to a port.
type Error struct {
	Port netip.AddrPort
	Err  error // nil: the port belongs to another user
	UID  uint32
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("port %d on %s: %v; nothing was sent", e.Port.Port(), e.Port.Addr(), e.Err)
	}
	return fmt.Sprintf("port %d on %s belongs to another user (uid %d); nothing was sent", e.Port.Port(), e.Port.Addr(), e.UID)
}

// Unwrap is what the kernel could not be asked for.
func (e *Error) Unwrap() error { return e.Err }

// A DialFunc is that of net.Dialer.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Dialer returns a DialFunc that connects only to ports that this process's own
// user or root listens on. Addresses are literal. On a system that cannot tell
// who listens, see Check, it is dial itself.
func Dialer(dial DialFunc) DialFunc {
	if !checks {
		return dial
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		return connect(at, func() (net.Conn, error) { return dial(ctx, network, address) })
	}
}

// connect asks who listens before and after dial. The same socket must be the
// answer both times. Between two answers that differ, another user could have
// bound the port, accepted the connection, and left the port to its owner again.
func connect(at netip.AddrPort, dial func() (net.Conn, error)) (net.Conn, error) {
	before, err := trusted(at)
	if err != nil {
		return nil, err
	}
	c, err := dial()
	if err != nil {
		return nil, err
	}
	after, err := trusted(at)
	if err == nil && (len(after) == 0 || !slices.Equal(before, after)) {
		err = &Error{Port: at, Err: errChanged}
	}
	if err != nil {
		_ = c.Close() // nothing was written
		return nil, err
	}
	return c, nil
}

var errAnyone = errors.New("this user namespace does not tell which user listens there")

// trusted returns the sockets that listen at a port, which may be none, if each
// of them is our own user's or root's.
func trusted(at netip.AddrPort) ([]Socket, error) {
	list, err := Listeners(at)
	if err != nil {
		return nil, &Error{Port: at, Err: err}
	}
	for _, s := range list {
		if s.UID != 0 && int(s.UID) != os.Geteuid() {
			return nil, &Error{Port: at, UID: s.UID}
		}
		if userns.Unknown(s.UID) {
			return nil, &Error{Port: at, Err: errAnyone}
		}
	}
	return list, nil
}
