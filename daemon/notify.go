package daemon

import (
	"net"
	"os"
	"time"
)

// notifyTimeout bounds one message to systemd. Refreshers wait for it.
const notifyTimeout = 100 * time.Millisecond

// notify tells the service manager (sd_notify(3)), if there is one.
//
// It is not go-systemd's SdNotify, because that one has no deadline: a manager
// that does not read (ten datagrams are enough to fill its queue) would stop
// every refresher with it. A message that is lost is only a line of status.
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
