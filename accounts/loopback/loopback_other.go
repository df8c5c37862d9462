//go:build !linux

package loopback

import (
	"errors"
	"net/netip"
)

const checks = false

var (
	errUnknown = errors.New("only Linux tells which user listens on a port")
	errChanged = errUnknown
)

// Check returns why Listeners cannot work here.
func Check() error { return errUnknown }

// Listeners does not work here.
func Listeners(netip.AddrPort) ([]Socket, error) { return nil, errUnknown }

// Owner does not work here.
func Owner(_, _ netip.AddrPort) (Socket, error) { return Socket{}, errUnknown }
