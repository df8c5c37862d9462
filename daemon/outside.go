package daemon

import (
	"context"
	"net"
	"net/http"

	"bloq-agent/daemon/config"
	"bloq-agent/daemon/wake"
	"bloq-agent/ipc/server"
	"bloq-agent/refresher"

	"github.com/rs/zerolog"
)

// An Outside is what a daemon reaches beside its disk, its stores and its
// configuration file. There is one, the machine's. A simulation puts another in its
// place, in which nothing waits for the kernel: that would stop virtual time.
type Outside struct {
	Clock refresher.Clock // closed with the daemon, if it can be
	// Dial connects to the endpoint; nil for the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Serve returns what answers by h. No request may come before its Serve is called.
	Serve        func(h http.Handler, hooks server.Hooks) Server
	WatchConfig  func(ctx context.Context, path string) (<-chan struct{}, error)
	WatchMachine func(ctx context.Context, hint func(), trouble func(what string, err error))
}

// A Server answers requests. *server.Server is one.
type Server interface {
	Serve() error
	Shutdown(context.Context) error
	Close() error
	CloseIdle()
	Turns() uint64 // for the watchdog: see server.Server
}

// machine is the Outside of a daemon that listens on l.
func machine(l net.Listener, log zerolog.Logger) *Outside {
	return &Outside{
		Clock:        machineClock(log),
		Serve:        func(h http.Handler, hooks server.Hooks) Server { return server.New(l, h, hooks) },
		WatchConfig:  config.Watch,
		WatchMachine: wake.Watch,
	}
}

func machineClock(log zerolog.Logger) refresher.Clock {
	clock, err := wake.NewClock()
	if err != nil {
		log.Warn().Err(err).Msg("timers stand still while the machine sleeps")
		return refresher.RuntimeClock()
	}
	return clock
}

// socket is the path that the daemon listens at, or "" if it does not listen.
func (o Options) socket() string {
	if o.Listener == nil {
		return ""
	}
	return o.Listener.Addr().String()
}
