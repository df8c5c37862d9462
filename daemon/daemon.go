package daemon

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/daemon/callers"
	"bloq-agent/daemon/sink"
	"bloq-agent/daemon/systemd"
	"bloq-agent/daemon/wake"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
	"bloq-agent/refresher"
	"bloq-agent/store"

	"github.com/rs/zerolog"
)

// shutdownTimeout bounds how long requests under way are waited for.
const shutdownTimeout = 5 * time.Second

// Options is what a daemon is started with.
type Options struct {
	Listener   net.Listener
	Version    string
	StateDir   string
	ConfigPath string
	Store      string // for new profiles, over the configuration's; may be ""
	Log        zerolog.Logger
	LogLevel   string // over the configuration's; may be ""
	Stores     Stores
	// Kept are the descriptors that systemd held for the daemon before.
	Kept []*os.File
	// Confine forbids the process to write anywhere but beneath StateDir and
	// Writes, once it has started.
	Confine bool
	Writes  []string
}

// A Daemon is the running agent.
type Daemon struct {
	options  Options
	log      zerolog.Logger
	started  time.Time
	records  *store.Profiles
	config   atomic.Pointer[configState]
	hub      hub
	sinks    sink.Keeper
	callers  callers.Ring
	confined atomic.Pointer[confinement]
	refusals seldom
	troubles seldom
	stopping atomic.Bool
	locked   atomic.Bool // by `bloq-agent lock`
	adopting sync.Mutex  // one login is taken over at a time
	locking  sync.Mutex  // one lock at a time: it holds every profile

	tokens  *systemd.Keeper
	keeping atomic.Bool // systemd took the tokens, when last asked

	clock  refresher.Clock
	ctx    context.Context // ends when the daemon stops
	cancel context.CancelFunc

	lastRead []byte // of the configuration file; New's, then Run's alone
	running  bool   // the same

	pause  func(n int) time.Duration // before the nth look at a store; tests replace it
	server *server.Server            // set before it serves; nil if nothing does

	mu       sync.Mutex          // guards the map, and nothing that blocks
	profiles map[string]*profile // by name; a name once known stays
}

// configState is the configuration in force and what became of the last
// attempt to replace it.
type configState struct {
	Config
	loaded time.Time
	err    error // why the file as it is now was not taken; nil if it was
}

// New reads the configuration and the profiles. A bad configuration is no
// error here: a service that exits while a client waits takes its socket down,
// so the daemon runs and answers `configuration`.
func New(o Options) (*Daemon, error) {
	records, err := store.OpenProfiles(o.StateDir)
	if err != nil {
		return nil, err
	}
	d := &Daemon{options: o, log: o.Log, started: time.Now(), records: records, profiles: map[string]*profile{}, pause: probePause}
	if note := records.Note(); note != "" {
		d.log.Warn().Msg(note)
	}
	clock, err := wake.NewClock()
	if err != nil {
		d.log.Warn().Err(err).Msg("timers stand still while the machine sleeps")
		d.clock = refresher.RuntimeClock()
	} else {
		d.clock = clock
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.locked.Store(d.wasLocked())
	d.config.Store(&configState{})
	d.reload()
	d.tokens = systemd.NewKeeper()
	d.keeping.Store(true)
	d.inheritTokens(o.Kept)
	return d, d.recordCredentials()
}

// Run serves until ctx ends, then stops in good order: an exchange under way
// is waited for and its refresh token kept. Values on reload make it read the
// configuration again.
func (d *Daemon) Run(ctx context.Context, reload <-chan os.Signal) error {
	d.running = true
	d.hub.init()
	defer d.startSinks()()
	d.openAll(ctx)
	srv := server.New(d.options.Listener, d.routes(), server.Hooks{Refused: d.refused, Trouble: d.troubled, Panicked: d.panicked})
	d.server = srv
	go d.callers.Run(ctx)
	served := make(chan error, 1)
	go func() { served <- srv.Serve() }()
	go d.runKeeper()
	changed := d.watch(ctx)
	wake.Watch(ctx, d.hint, func(what string, err error) { d.log.Debug().Err(err).Msg(what) })
	d.reloadChanged() // what was written before the watch stood
	d.confine()
	d.log.Info().Str("socket", d.options.Listener.Addr().String()).Str("version", d.options.Version).
		Int("profiles", len(d.names())).Str("tokens_kept", d.tokens.State()).Msg("started")
	systemd.Ready(d.statusLine())
	go systemd.Watchdog(ctx, d.answers, func(err error) { d.log.Warn().Err(err).Msg("the socket does not answer") })
	for {
		select {
		case <-ctx.Done():
			return d.shutdown(srv, served)
		case err := <-served:
			d.haltAll()
			return fmt.Errorf("serving: %w", err)
		case <-reload:
			systemd.Reloading()
			d.reload()
			systemd.Ready(d.statusLine())
		case <-changed:
			d.reloadChanged()
		case <-d.recheck():
			d.reloadMended()
		}
	}
}

func (d *Daemon) shutdown(srv *server.Server, served <-chan error) error {
	d.log.Info().Msg("stopping")
	systemd.Stopping()
	d.stopping.Store(true)
	d.cancel()
	d.hub.close()
	d.tellWaits()
	halted := make(chan struct{})
	go func() {
		defer close(halted)
		d.haltAll()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		_ = srv.Close() // what is left is a peer that does not read
	}
	<-halted
	select {
	case <-d.tokens.Changes(): // the keeper has stopped before it came to that
		d.tellKept(d.keepTokens())
	default:
	}
	d.closeClock()
	return <-served
}

// tellWaits says why a stop takes time: people would kill what they think hangs,
// and with it a refresh token that the endpoint may just have replaced.
func (d *Daemon) tellWaits() {
	for _, p := range d.all() {
		s := p.state.Load()
		if s.login == nil {
			continue
		}
		if what, _ := s.login.doing.Load().(string); what != "" {
			d.log.Info().Str("profile", p.name).Msg("stopping when an exchange under way is over: waiting for " + what + ", 40 s at most")
		}
	}
}

func (d *Daemon) closeClock() {
	if c, ok := d.clock.(io.Closer); ok {
		_ = c.Close() // the process is about to end
	}
}

// openAll asks the store for every profile at the same time, so that a frozen
// keyring costs its time-out once.
func (d *Daemon) openAll(ctx context.Context) {
	if d.config.Load().loaded.IsZero() {
		return // the file may name other URLs; nothing is sent before it is mended
	}
	d.eachProfile(func(p *profile) {
		if s := p.state.Load(); s.problem != nil && !s.failed.IsZero() {
			d.open(ctx, p)
		}
	})
}

// hint tells every refresher that runs that the network may be back.
func (d *Daemon) hint() {
	d.log.Debug().Msg("the network has changed, or the machine has woken up")
	d.mu.Lock()
	profiles := slices.Collect(maps.Values(d.profiles))
	d.mu.Unlock()
	for _, p := range profiles {
		if s := p.state.Load(); s.refresher != nil {
			s.refresher.Hint()
		}
	}
}

// haltAll is for the end: what could not be saved by then is told.
func (d *Daemon) haltAll() {
	d.eachProfile(func(p *profile) { p.state.Load().halt() })
	d.tellLosses()
}

// eachProfile runs f for all profiles at the same time, each under its change
// lock.
func (d *Daemon) eachProfile(f func(*profile)) {
	var wg sync.WaitGroup
	for _, p := range d.all() {
		wg.Go(func() {
			p.change.Lock()
			defer p.change.Unlock()
			f(p)
		})
	}
	wg.Wait()
}

// profile is the profile called name, made known if it was not.
func (d *Daemon) profile(name string) *profile {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.profiles[name]
	if p == nil {
		p = &profile{name: name}
		p.set(&state{
			facts:   d.facts(name),
			problem: &ipc.Problem{Code: ipc.CodeUnavailable, Detail: name + ": its secrets are being read"},
			failed:  time.Unix(1, 0),
		})
		d.profiles[name] = p
	}
	return p
}

// all are the profiles that exist and those that are just coming to be.
func (d *Daemon) all() []*profile {
	for _, name := range d.names() {
		d.profile(name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.profiles))
}

// names are the profiles that exist: those with a record or in the
// configuration.
func (d *Daemon) names() []string {
	seen := map[string]bool{}
	for _, f := range d.records.List() {
		seen[f.Name] = true
	}
	for name := range d.config.Load().Profiles {
		seen[name] = true
	}
	list := make([]string, 0, len(seen))
	for name := range seen {
		list = append(list, name)
	}
	sort.Strings(list)
	return list
}

func (d *Daemon) clientOptions() accounts.Options {
	return accounts.Options{UserAgent: "bloq-agent/" + d.options.Version, RootCAs: d.config.Load().roots}
}
