package daemon

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"bloq-agent/daemon/config"
)

// A rebinder is a listener that can bind its path again. systemd's cannot.
type rebinder interface{ Rebind() error }

// An ownSocket looks after the socket that callers find the daemon by.
type ownSocket struct{ *Daemon }

// keep notices when the socket is not at its path any more: a logout or a
// cleaner has removed it, and no caller would find the daemon again. It binds
// it again, or says what a person has to type. It ends with ctx.
func (d ownSocket) keep(ctx context.Context) {
	if d.options.Listener == nil {
		return
	}
	path := d.options.Listener.Addr().String()
	bound, _ := os.Lstat(path) // nil if it is gone already
	changed, err := config.Watch(ctx, path)
	if err != nil {
		d.log.Warn().Err(err).Msg("the socket cannot be watched; if it is removed, nothing makes it again")
	}
	for { // what was removed before the watch stood is seen by the first look
		there, err := os.Lstat(path)
		if err != nil || bound == nil || !os.SameFile(bound, there) {
			bound = d.rebind(path, bound)
		} else {
			d.lost("")
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// rebind returns the socket that is in force afterwards.
func (d ownSocket) rebind(path string, bound os.FileInfo) os.FileInfo {
	r, ok := d.options.Listener.(rebinder)
	if !ok {
		d.lost("the socket " + path + " is gone, and only systemd can make it again: " + socketCommand(os.Getenv))
		return bound
	}
	if err := r.Rebind(); err != nil {
		d.lost("the socket " + path + " is gone; it is made again when that is possible: " + err.Error())
		return bound
	}
	d.lost("")
	d.log.Warn().Str("socket", path).Msg("the socket was gone and has been made again")
	bound, _ = os.Lstat(path)
	return bound
}

// lost tells the log and systemd why callers do not find the daemon; "" if
// they do.
func (d ownSocket) lost(why string) {
	if was := d.told.socket.Swap(&why); was != nil && *was == why || was == nil && why == "" {
		return
	}
	if why != "" {
		d.log.Error().Msg(why)
	}
	d.told.lineDue()
}

// socketCommand is what mends a socket of systemd's.
func socketCommand(getenv func(string) string) string {
	if getenv("MANAGERPID") != "" { // of the user's manager
		return "systemctl --user restart bloq-agent.socket"
	}
	return "sudo systemctl restart bloq-agent@" + getenv("USER") + ".socket"
}

// ground is where a socket of our own may be made again: its directory may be
// another one by then, and so may the runtime directory above.
func (d ownSocket) ground() string {
	if _, ok := d.options.Listener.(rebinder); !ok {
		return ""
	}
	above := filepath.Dir(filepath.Dir(d.options.Listener.Addr().String()))
	switch up := filepath.Dir(above); {
	case strings.HasPrefix(above, "/run/user/"):
		return "/run/user"
	case up != "/":
		return up
	case above != "/":
		return above
	}
	return ""
}
