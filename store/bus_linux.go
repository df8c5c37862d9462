package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"bloq-agent/store/trusted"
	"bloq-agent/userns"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Whoever serves the session bus gets the refresh token, so the bus is checked as
// our own socket is: a Unix socket, which lies where nobody else could have put
// another, and a server of our user or root at its other end.

// runUser is where systemd makes a directory for each user. Tests have their own.
var runUser = "/run/user"

// A busAddress is a place where a session bus may be.
type busAddress struct {
	path, abstract string // one of them
}

func (a busAddress) String() string {
	if a.abstract != "" {
		return "unix:abstract=" + a.abstract
	}
	return a.path
}

// connectBus connects to the first session bus that is there. A bus that is not
// to be trusted ends the search: the next one would be another keyring than the
// environment names. It never launches a bus, where nobody would ever unlock a
// keyring.
func connectBus(ctx context.Context) (*dbus.Conn, error) {
	addresses, err := namedBuses(os.Getenv("DBUS_SESSION_BUS_ADDRESS"))
	if err != nil {
		return nil, err
	}
	none := reasonNoBus
	if len(addresses) > 0 {
		none = reasonGone
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		addresses = append(addresses, busAddress{path: dir + "/bus"})
	}
	addresses = append(addresses, busAddress{path: fmt.Sprintf("%s/%d/bus", runUser, os.Getuid())})
	var first error
	for _, a := range addresses {
		c, err := a.connect(ctx)
		var u *Unavailable
		if err == nil || errors.As(err, &u) || ctx.Err() != nil {
			return c, err
		}
		if first == nil {
			first = err
		}
	}
	if none == reasonNoBus {
		first = nil // nobody asked for a bus there
	}
	return nil, unavailable(none, first)
}

// namedBuses reads DBUS_SESSION_BUS_ADDRESS (D-Bus specification, "Server
// Addresses").
func namedBuses(list string) ([]busAddress, error) {
	var addresses []busAddress
	for entry := range strings.SplitSeq(list, ";") {
		transport, rest, _ := strings.Cut(entry, ":")
		switch transport {
		case "", "autolaunch":
			continue
		case "unix":
		default:
			return nil, untrusted("DBUS_SESSION_BUS_ADDRESS names a bus by %q, and only unix:path= and unix:abstract= show who serves it", transport+":")
		}
		a, err := parseUnix(rest)
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, a)
	}
	return addresses, nil
}

func parseUnix(keys string) (a busAddress, err error) {
	for pair := range strings.SplitSeq(keys, ",") {
		key, value, _ := strings.Cut(pair, "=")
		plain, err := dbus.UnescapeBusAddressValue(value)
		switch {
		case key != "path" && key != "abstract":
			continue // guid, which the library does not look at either
		case err != nil, plain == "", strings.Contains(plain, "\x00"), a != busAddress{}, key == "path" && plain[0] != '/':
			return a, untrusted("DBUS_SESSION_BUS_ADDRESS has a unix:%s= that makes no sense", key)
		case key == "path":
			a.path = plain
		default:
			a.abstract = plain
		}
	}
	if (a == busAddress{}) {
		return a, untrusted("DBUS_SESSION_BUS_ADDRESS has a unix: address with neither path= nor abstract=")
	}
	return a, nil
}

// connect fails with an *Unavailable if there is a bus that is not to be trusted,
// or one that does not let us in. Any other error says that there is none.
func (a busAddress) connect(ctx context.Context) (*dbus.Conn, error) {
	if a.path != "" {
		if err := checkPath(a.path); err != nil {
			return nil, err
		}
	}
	name := a.path
	if a.abstract != "" {
		name = "@" + a.abstract
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", name)
	if err != nil {
		return nil, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("%T is no Unix socket", c)
	}
	// What has come to the path since it was looked at is found out here, before
	// it has been sent a byte.
	if err := checkPeer(conn, a); err != nil {
		_ = conn.Close()
		return nil, err
	}
	bus, err := dbus.ConnectUnix(conn, dbus.WithContext(ctx))
	if err != nil {
		return nil, failedCall(err)
	}
	return bus, nil
}

// checkPath checks that nobody else could have put a socket at path.
func checkPath(path string) error {
	err := trusted.CheckParents(path)
	var bad *trusted.Error
	if errors.As(err, &bad) {
		bad.Mend = "" // who takes another user's socket or directory has no bus yet
		return untrusted("%w", bad)
	}
	if err != nil {
		return err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || fi.Mode()&fs.ModeSocket == 0 {
		return untrusted("%s is not a socket", path)
	} else if !ours(st.Uid) {
		return untrusted("%s belongs to another user (uid %d)", path, st.Uid)
	}
	return nil
}

// checkPeer asks the kernel who listens at the other end (SO_PEERCRED, unix(7)).
func checkPeer(c *net.UnixConn, a busAddress) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var peerErr error
	err = raw.Control(func(fd uintptr) { peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, peerErr); err != nil {
		return err
	}
	if !ours(peer.Uid) {
		return untrusted("the bus at %s is served by another user (uid %d)", a, peer.Uid)
	}
	return nil
}

// ours reports whether uid is ourselves or root, whose systemd makes sockets.
func ours(uid uint32) bool { return uid == 0 || int(uid) == os.Getuid() && !userns.Unknown(uid) }

func untrusted(format string, args ...any) error {
	return unavailable(reasonUntrusted, fmt.Errorf(format, args...))
}
