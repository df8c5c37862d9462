package daemon

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"time"

	"bloq-agent/ipc"

	sddaemon "github.com/coreos/go-systemd/v22/daemon"
)

// startWatchdog tells systemd that we live, as long as the socket answers:
// a daemon that runs and does not serve is as good as dead. It does nothing
// where no watchdog waits (sd_watchdog_enabled(3)).
func (d *Daemon) startWatchdog(ctx context.Context) {
	every, err := sddaemon.SdWatchdogEnabled(false)
	if err != nil || every <= 0 {
		return
	}
	go d.runWatchdog(ctx, every/2)
}

func (d *Daemon) runWatchdog(ctx context.Context, every time.Duration) {
	for {
		if err := answers(d.options.Listener.Addr(), every); err == nil {
			notify(sddaemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			d.log.Warn().Err(err).Msg("the socket does not answer")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

// answers asks the socket for the status, as any caller would.
func answers(socket net.Addr, within time.Duration) error {
	c, err := net.DialTimeout(socket.Network(), socket.String(), within)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.0\r\n\r\n", ipc.RouteStatus); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && len(line) < len("HTTP/1.0 200") {
		err = fmt.Errorf("it says %q", line)
	}
	return err
}

// reloading is what systemd wants to hear before a reload; READY=1 ends it. The
// time is CLOCK_MONOTONIC's (sd_notify(3)).
func reloading() string {
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", sddaemon.SdNotifyReloading, monotonic().Microseconds())
}
