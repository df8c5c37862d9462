package daemon

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/daemon/config"
	"bloq-agent/daemon/profile"
	"bloq-agent/daemon/systemd"
	"bloq-agent/ipc"
	"bloq-agent/store/trusted"

	"github.com/rs/zerolog"
)

// A configuration is the file in force, and what became of the last attempt to
// replace it. Its zero value is that of a daemon which has read none.
type configuration struct {
	current  atomic.Pointer[loaded]
	lastRead []byte // New's, then keepConfig's
	emptied  bool   // the file is empty since; keepConfig's

	looks     chan struct{}          // asks for a look at the file; nil before New
	unwatched atomic.Pointer[string] // why changes are not seen at once
}

// look has the file compared, and does not wait for that. One look is enough for
// all who ask during the one before.
func (c *configuration) look() {
	select {
	case c.looks <- struct{}{}:
	default:
	}
}

type loaded struct {
	config.Config
	at  time.Time // zero while there was no good file yet
	err error     // why the file as it is now was not taken; nil if it was
}

func (c *configuration) get() config.Config {
	if l := c.current.Load(); l != nil {
		return l.Config
	}
	return config.Config{}
}

// ready reports whether there has been a good configuration.
func (c *configuration) ready() bool {
	l := c.current.Load()
	return l != nil && !l.at.IsZero()
}

// problem is the answer to requests before there was a good configuration.
func (c *configuration) problem() *ipc.Problem {
	if c.ready() {
		return nil
	}
	return notTaken(c.current.Load().err)
}

// notTaken is the answer while there is no configuration in force.
func notTaken(err error) *ipc.Problem {
	first, more, _ := strings.Cut(err.Error(), "\n")
	hint := trusted.Mend(err)
	if hint == "" || more != "" {
		hint = "bloq-agent config check"
	}
	return &ipc.Problem{Code: ipc.CodeConfiguration, Detail: first, Hint: hint}
}

func (c *configuration) status(path string) ipc.ConfigStatus {
	l := c.current.Load()
	s := ipc.ConfigStatus{Path: path, LoadedAt: l.at.UTC()}
	if l.err != nil {
		s.Error = l.err.Error()
	}
	if why := c.unwatched.Load(); why != nil {
		s.Unwatched = *why
	}
	return s
}

// reload reads the configuration. A file that is wrong keeps the one in force.
func (d *Daemon) reload() {
	c, data, err := config.Load(d.options.ConfigPath)
	d.config.lastRead = data
	first := !d.config.ready()
	if err != nil {
		old := d.config.current.Load()
		if old == nil {
			old = &loaded{}
		}
		d.config.current.Store(&loaded{Config: old.Config, at: old.at, err: err})
		next := "keeping the one before"
		if first {
			next = "there is none before it, so nothing is served until it is mended"
		}
		d.log.Error().Err(err).Msg("configuration not taken; " + next)
		return
	}
	if d.server != nil {
		renewRoots(d.log, &c, d.config.get())
	}
	d.config.current.Store(&loaded{Config: c, at: d.outside.Clock.Now()})
	applyLevel(d.options.LogLevel, c.LogLevel)
	if d.server == nil {
		return // Run has not begun
	}
	d.log.Info().Str("path", d.options.ConfigPath).Msg("configuration reloaded")
	d.hub.publish(ipc.Event{Time: d.outside.Clock.Now().UTC(), Event: "reloaded"})
	d.sinks.Wake()
	d.state.allow()
	if set := d.state.set.Load(); set != nil {
		set.Configure(d.settings()) // beside the loop: it waits for exchanges and stores
	}
}

// renewRoots has c trust the system's certificates as they are now. Go does not read
// them again, so what Go trusts may have been removed since.
func renewRoots(log zerolog.Logger, c *config.Config, before config.Config) {
	roots, err := config.ReadRoots(c.CAFile)
	switch {
	case err != nil:
		log.Error().Err(err).Msg("certificates not read again")
		if c.CAFile == before.CAFile {
			c.Roots = before.Roots
		}
	case roots != nil:
		c.Roots = roots
	}
}

// reloadPatience is how long a reload may take before the daemon reports its end all
// the same.
const reloadPatience = 5 * time.Second

// keepConfig reads the configuration when it may have changed, and for each value on
// reload. It runs beside Run's loop: the file may be on a disk that does not answer.
func (d *Daemon) keepConfig(ctx context.Context, reload <-chan os.Signal) {
	changed, differs := d.watch(ctx), config.Compare(ctx, d.options.ConfigPath, d.config.looks)
	d.reloadChanged() // what was written before the watch stood
	for {
		select {
		case <-ctx.Done():
			return
		case <-reload:
			systemd.Reloading()
			hangs := time.AfterFunc(reloadPatience, func() { // systemctl waits
				d.log.Error().Msg("the configuration cannot be read: its file system does not answer")
				systemd.Ready()
			})
			d.reload()
			if hangs.Stop() {
				systemd.Ready()
			}
		case <-changed:
			d.reloadChanged()
		case <-differs:
			d.reloadChanged()
		case <-d.recheck():
			d.reloadMended()
		}
	}
}

// watch sends when the configuration file may have changed. What the watch cannot
// see is compared after each exchange and each status; see configuration.look.
func (d *Daemon) watch(ctx context.Context) <-chan struct{} {
	changed, err := d.outside.WatchConfig(ctx, d.options.ConfigPath)
	if err != nil {
		why := err.Error()
		d.config.unwatched.Store(&why)
		d.log.Warn().Err(err).Msg("the configuration cannot be watched; a change is noticed after the next refresh or status")
	}
	return changed
}

// reloadChanged is reload for a hint of the file system, which also comes when
// nothing of ours has changed, or half of it.
func (d *Daemon) reloadChanged() {
	data, err := trusted.ReadFile(d.options.ConfigPath)
	d.config.emptied = err == nil && len(data) == 0 && len(d.config.lastRead) > 0
	if d.config.emptied {
		return // about to be written, most likely; recheck sees to it
	}
	if bytes.Equal(data, d.config.lastRead) && (err == nil || os.IsNotExist(err)) {
		return // some other file of the directory
	}
	d.reload()
}

// recheckPause is for a configuration that is refused, because the command that mends
// it may change a directory that the watcher does not see. A file that is empty for as
// long is meant to be empty.
const recheckPause = 5 * time.Second

// recheck fires when a refused or emptied configuration should be looked at again, and
// never for another.
func (d *Daemon) recheck() <-chan time.Time {
	var refused *trusted.Error
	if !d.config.emptied && !errors.As(d.config.current.Load().err, &refused) {
		return nil
	}
	return time.After(recheckPause)
}

// reloadMended is reload, unless what is wrong is what was wrong before.
func (d *Daemon) reloadMended() {
	_, _, err := config.Load(d.options.ConfigPath)
	emptied := d.config.emptied
	d.config.emptied = false
	if before := d.config.current.Load().err; !emptied && err != nil && before != nil && err.Error() == before.Error() {
		return
	}
	d.reload()
}

// applyLevel puts the first level that is not "" in force, else info.
func applyLevel(levels ...string) {
	level := cmp.Or(levels...)
	if l, err := zerolog.ParseLevel(level); err == nil && level != "" {
		zerolog.SetGlobalLevel(l)
		return
	}
	zerolog.SetGlobalLevel(zerolog.InfoLevel)
}

// settings are what the configuration says of profiles.
func (d *Daemon) settings() profile.Settings {
	c := d.config.get()
	s := profile.Settings{
		Ready: d.config.ready(), Names: slices.Collect(maps.Keys(c.Profiles)), Store: "keyring", Endpoints: c.Endpoints,
		Client: accounts.Options{
			UserAgent: "bloq-agent/" + d.options.Version, RootCAs: c.Roots,
			Renew:       func() (*x509.CertPool, error) { return config.ReadRoots(d.config.get().CAFile) },
			DialContext: d.outside.Dial, Now: d.outside.Clock.Now,
		},
		TrustHint: c.TrustHint(), Restart: restartCommand(os.Getenv, os.Getpid()),
	}
	for _, name := range []string{c.Store, d.options.Store} {
		if name != "" {
			s.Store = name
		}
	}
	return s
}

// restartCommand is what a person types to restart the daemon of that pid.
// systemd.exec(5) names the variables. A terminal that is itself a service hands
// them down to a daemon that a person starts in it; only SYSTEMD_EXEC_PID tells.
func restartCommand(getenv func(string) string, pid int) string {
	self := strconv.Itoa(pid)
	switch {
	case getenv("INVOCATION_ID") == "" || cmp.Or(getenv("SYSTEMD_EXEC_PID"), self) != self:
		return "stop bloq-agent (kill " + self + ") and start it again"
	case getenv("MANAGERPID") != "": // of the user's manager
		return "systemctl --user restart bloq-agent"
	}
	return "sudo systemctl restart bloq-agent@" + getenv("USER")
}
