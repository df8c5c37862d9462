// Package systemd is the daemon's side of what systemd offers a service: the
// socket and the descriptors that it passes, readiness and status, the watchdog,
// the journal's fields, and a place for descriptors over a restart.
//
// It promises that a service manager that is absent, slow or frozen delays the
// daemon by a bounded time and never stops it.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
)

// SocketName is the FileDescriptorName= of our socket unit.
const SocketName = "bloq-agent"

// keptPrefix begins the names of the descriptors that a Keeper has systemd hold.
const keptPrefix = "tokens-"

// Activated returns the listener that systemd passed (sd_listen_fds(3)), or nil,
// and the descriptors that it held for the daemon before this one. It fails if
// systemd passed anything else. It unsets the variables, so that no child takes
// the descriptors for its own.
func Activated() (socket net.Listener, kept []*os.File, err error) {
	files := activation.Files(true)
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Name()
	}
	ours, err := findSocket(names)
	for i, f := range files {
		switch {
		case i == ours && err == nil:
			socket, err = net.FileListener(f)
			_ = f.Close()
			if err != nil {
				err = fmt.Errorf("taking over the socket of systemd: %w", err)
			}
		case err == nil:
			kept = append(kept, f)
		default:
			_ = f.Close()
		}
	}
	return socket, kept, err
}

// findSocket returns the index of our socket among the names that systemd passed
// (LISTEN_FDNAMES), or -1. Every other name must be one of a Keeper's.
func findSocket(names []string) (int, error) {
	socket := -1
	for i, name := range names {
		switch {
		case strings.HasPrefix(name, keptPrefix):
		case name == SocketName && socket < 0:
			socket = i
		default:
			return -1, fmt.Errorf("systemd passed a socket that is not wanted: %q", name)
		}
	}
	return socket, nil
}
