package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"bloq-agent/daemon/callers"
	"bloq-agent/daemon/profile"
	"bloq-agent/daemon/sink"
	"bloq-agent/daemon/systemd"
	"bloq-agent/ipc/server"

	"github.com/rs/zerolog"
)

// shutdownTimeout bounds the wait for requests under way.
const shutdownTimeout = 5 * time.Second

// Options is what a daemon is started with.
type Options struct {
	Listener   net.Listener // may be nil with an Outside
	Version    string
	StateDir   string
	ConfigPath string
	Store      string // for new profiles, over the configuration's; may be ""
	Log        zerolog.Logger
	LogLevel   string // over the configuration's; may be ""
	Stores     profile.Stores
	// Kept are the descriptors that systemd held for the daemon before.
	Kept []*os.File
	// Confine forbids the process to write anywhere except beneath StateDir and
	// Writes, once it has started.
	Confine bool
	Writes  []string
	// Outside is nil for the machine's own.
	Outside *Outside
}

// A Daemon is the running agent.
type Daemon struct {
	options  Options
	log      zerolog.Logger
	started  time.Time
	config   configuration
	state    state
	hub      hub
	sinks    sink.Keeper
	callers  callers.Ring
	told     told
	confined atomic.Pointer[confinement]
	tokens   *systemd.Keeper
	outside  *Outside
	server   Server // nil until Run
}

// New reads the configuration and the profiles. If one of them is wrong, the
// daemon runs all the same and answers `configuration` until it is mended: a
// service that exits while a client waits takes its socket down. New fails only if
// another daemon has the state directory.
func New(o Options) (*Daemon, error) {
	d := &Daemon{options: o, log: o.Log, outside: o.Outside, tokens: systemd.NewKeeper()}
	d.told.line = make(chan struct{}, 1)
	d.told.days, d.told.skew = map[string]int64{}, map[string]bool{}
	if d.outside == nil {
		d.outside = machine(o.Listener, d.log)
	}
	d.started = d.outside.Clock.Now()
	o.Stores.File.Key().Look()
	d.config.looks = make(chan struct{}, 1)
	d.reload()
	kept := d.takeKept()
	d.state.open = func() (*profile.Set, error) { return d.openState(kept) }
	d.state.failed = func(err error) {
		d.log.Error().Err(err).Msg("the profiles cannot be read; nothing is served until they can")
	}
	return d, d.state.first()
}

// Run serves until ctx ends, then stops in good order: it waits for an exchange
// under way and keeps its refresh token. A value on reload makes it read the
// configuration again.
func (d *Daemon) Run(ctx context.Context, reload <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.hub.init()
	defer tokenFiles{d}.start()()
	d.state.start(d.config.ready())
	tells := narrator{d}
	d.server = d.outside.Serve(d.routes(), server.Hooks{Refused: tells.refused, Trouble: tells.troubled, Panicked: tells.panicked})
	served := make(chan error, 1)
	go func() { served <- d.server.Serve() }()
	go d.callers.Run(ctx)
	go d.keepTokensFresh(ctx)
	d.outside.WatchMachine(ctx, d.hint, func(what string, err error) { d.log.Debug().Err(err).Msg(what) })
	d.confine()
	d.log.Info().Str("socket", d.options.socket()).Str("version", d.options.Version).
		Int("profiles", len(d.profiles())).Str("tokens_kept", d.tokens.State()).Msg("started")
	systemd.Ready()
	go tells.keepStatusLine(ctx)
	go d.keepConfig(ctx, reload)
	go ownSocket{d}.keep(ctx)
	beat := newPulse()
	go systemd.Watchdog(ctx, alive(d.server.Turns, beat.turns), func(err error) { d.log.Warn().Err(err).Msg("no sign of life for the watchdog") })
	for { // it touches no file: the watchdog looks at it
		select {
		case <-ctx.Done():
			return d.shutdown(served)
		case err := <-served:
			d.state.close()
			return fmt.Errorf("serving: %w", err)
		case <-beat.asked:
			beat.count.Add(1)
		}
	}
}

func (d *Daemon) shutdown(served <-chan error) error {
	d.log.Info().Msg("stopping")
	systemd.Stopping()
	d.hub.close()
	halted := make(chan struct{})
	go func() {
		defer close(halted)
		d.state.close()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := d.server.Shutdown(ctx); err != nil {
		_ = d.server.Close() // a peer that reads no answer is not waited for
	}
	<-halted
	select {
	case <-d.tokens.Changes(): // keepTokensFresh has stopped before it came to that
		_ = d.keepTokens() // it has told
	default:
	}
	d.Close()
	return <-served
}

// Close releases what New took. Run does it too.
func (d *Daemon) Close() {
	d.state.close()
	if c, ok := d.outside.Clock.(io.Closer); ok {
		_ = c.Close() // the process is about to end
	}
}

// takeKept reads the access tokens that the daemon before left with systemd.
func (d *Daemon) takeKept() []profile.Kept {
	data, err := d.tokens.Take(d.options.Kept)
	kept, decodeErr := profile.DecodeKept(data)
	clear(data)
	if err == nil {
		err = decodeErr
	}
	if err != nil {
		d.log.Warn().Err(err).Msg("some tokens of the daemon before are lost")
	}
	if len(d.options.Kept) > 0 {
		d.tokens.Changed() // a lock may have been killed before it dropped them
	}
	return kept
}

// keepTokens has systemd hold the access tokens of this moment.
func (d *Daemon) keepTokens() error {
	set := d.state.set.Load()
	if set == nil {
		return nil
	}
	err := d.tokens.Keep(set.Keep)
	if was := d.told.lost.Swap(err != nil); err != nil && !was {
		d.log.Warn().Err(err).Msg("access tokens will not survive a restart")
	}
	return err
}

// keepTokensFresh runs beside the refreshers, which do not wait for systemd.
func (d *Daemon) keepTokensFresh(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.tokens.Changes():
			_ = d.keepTokens() // it has told
		}
	}
}

func (d *Daemon) hint() {
	d.log.Debug().Msg("the network has changed, or the machine has woken up")
	if set := d.state.set.Load(); set != nil {
		set.Hint()
	}
}

// profiles are those that exist; none if the state cannot be read.
func (d *Daemon) profiles() []*profile.Profile {
	set := d.state.set.Load()
	if set == nil {
		return nil
	}
	return set.Profiles()
}
