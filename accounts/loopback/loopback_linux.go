package loopback

import (
	"errors"
	"fmt"
	"net/netip"
)

const checks = true

var (
	errChanged = errors.New("another program listens there than when the call began")
	errNone    = errors.New("no such connection")
)

// Check returns why Listeners cannot work in this process, or nil.
func Check() error {
	_, err := Listeners(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 1))
	return err
}

// Listeners returns the sockets that may accept a connection to a loopback
// address and port, sorted by inode. It is an error if nobody can be asked.
//
// The kernel names one socket, the one that it would choose itself. Others with
// SO_REUSEPORT belong to the same user, which bind(2) sees to. If the kernel
// names none, that can also mean that it has no tcp_diag; then its lists tell.
// They do not tell whether an IPv6 socket takes IPv4, so each counts.
func Listeners(at netip.AddrPort) ([]Socket, error) {
	at = unmapped(at)
	// No connection comes from port 0, so the answer is the listener and never
	// the accepted end. Linux before 6.16 or so says of the latter that it is
	// root's until it is accepted.
	s, state, err := diagnose(at, netip.AddrPortFrom(at.Addr(), 0))
	if err == nil && state == stateListen {
		return []Socket{s}, nil
	}
	list, procErr := listed(func(e entry) bool { return e.state == stateListen && e.accepts(at) })
	if procErr != nil {
		return nil, fmt.Errorf("cannot tell who listens there (netlink: %w; %w)", err, procErr)
	}
	return list, nil
}

// Owner returns the end at local of an established connection to remote.
func Owner(local, remote netip.AddrPort) (Socket, error) {
	local, remote = unmapped(local), unmapped(remote)
	s, state, err := diagnose(local, remote)
	if err == nil && state == stateEstablished {
		return s, nil
	}
	list, procErr := listed(func(e entry) bool {
		return e.state == stateEstablished && e.local == local && e.remote == remote
	})
	switch {
	case procErr != nil:
		return Socket{}, fmt.Errorf("cannot tell whose connection it is (netlink: %w; %w)", err, procErr)
	case len(list) != 1:
		return Socket{}, errNone
	}
	return list[0], nil
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
