package systemd

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifyTimeout bounds one message to systemd. Refreshers wait for it.
const notifyTimeout = 100 * time.Millisecond

// Ready reports the end of the start, or of a reload. It carries no status, whose
// length could cost the whole message.
func Ready() { notify(daemon.SdNotifyReady) }

// MaxStatus is the longest line of status, in bytes. systemd drops messages above
// 4,096, and people read one line.
const MaxStatus = 1024

// Status sets the line that `systemctl status` shows. It cuts what is longer than
// MaxStatus.
func Status(line string) {
	if len(line) > MaxStatus {
		line = strings.ToValidUTF8(line[:MaxStatus-len("…")], "") + "…"
	}
	notify("STATUS=" + line)
}

// Managed reports whether there is a service manager to notify.
func Managed() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// Reloading reports the begin of a reload. Ready ends it. systemd wants the time
// of CLOCK_MONOTONIC with it (sd_notify(3)).
func Reloading() {
	notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonic().Microseconds()))
}

// Stopping reports the begin of the end.
func Stopping() { notify(daemon.SdNotifyStopping) }

// notify sends state to the service manager (sd_notify(3)), if there is one.
//
// It is not go-systemd's SdNotify, because that one has no deadline: a manager
// that does not read (ten datagrams fill its queue) would stop every refresher.
// A message that is lost costs a line of status.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	if c.SetWriteDeadline(time.Now().Add(notifyTimeout)) == nil {
		_, _ = c.Write([]byte(state))
	}
}
