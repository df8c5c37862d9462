package systemd

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Watchdog reports to systemd that the daemon is alive, until ctx ends and as
// long as alive does not fail, which it calls twice in the time that systemd allows.
// It calls failed with the error of alive. It does nothing where systemd expects no report (sd_watchdog_enabled(3)).
func Watchdog(ctx context.Context, alive func() error, failed func(error)) {
	timeout, err := daemon.SdWatchdogEnabled(false)
	if err != nil || timeout <= 0 {
		return
	}
	every := timeout / 2
	for {
		if err := alive(); err == nil {
			notify(daemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}
