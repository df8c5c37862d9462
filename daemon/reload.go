package daemon

import (
	"cmp"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/daemon/dialect"
	"bloq-agent/daemon/profile"
	"bloq-agent/ipc"
	"bloq-agent/store"
	"bloq-agent/store/trusted"

	"github.com/rs/zerolog"
)

// A configuration is the file in force, and what became of the last attempt to
// replace it. Its zero value is that of a daemon which has read none.
type configuration struct {
	current  atomic.Pointer[loaded]
	lastRead []byte // New's, then the Run loop's
}

type loaded struct {
	Config
	at  time.Time // zero while there was no good file yet
	err error     // why the file as it is now was not taken; nil if it was
}

func (c *configuration) get() Config {
	if l := c.current.Load(); l != nil {
		return l.Config
	}
	return Config{}
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
	return s
}

// reload reads the configuration. A file that is wrong keeps the one in force.
func (d *Daemon) reload() {
	c, data, err := LoadConfig(d.options.ConfigPath)
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
	d.config.current.Store(&loaded{Config: c, at: time.Now()})
	applyLevel(d.options.LogLevel, c.LogLevel)
	if d.server == nil {
		return // Run has not begun
	}
	d.log.Info().Str("path", d.options.ConfigPath).Msg("configuration reloaded")
	d.hub.publish(ipc.Event{Time: time.Now().UTC(), Event: "reloaded"})
	d.sinks.Wake()
	d.state.allow()
	if set := d.state.set.Load(); set != nil {
		set.Configure(d.settings()) // beside the loop: it waits for exchanges and stores
	}
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
		Ready: d.config.ready(), Names: slices.Collect(maps.Keys(c.Profiles)), Store: "keyring", Endpoints: c.endpoints,
		Client: accounts.Options{UserAgent: "bloq-agent/" + d.options.Version, RootCAs: c.roots}, Trust: string(c.rootsPEM),
		Restart: restartCommand(os.Getenv),
	}
	for _, name := range []string{c.Store, d.options.Store} {
		if name != "" {
			s.Store = name
		}
	}
	return s
}

// restartCommand restarts a daemon that systemd started; "" for one that a person
// did. systemd.exec(5) names the variables.
func restartCommand(getenv func(string) string) string {
	switch {
	case getenv("INVOCATION_ID") == "":
		return ""
	case getenv("MANAGERPID") != "": // of the user's manager
		return "systemctl --user restart bloq-agent"
	}
	return "sudo systemctl restart bloq-agent@" + getenv("USER")
}

// endpoints are the URLs of a profile: what its login recorded, overridden by the
// file.
func (c Config) endpoints(r store.Profile) accounts.Endpoints {
	e := accounts.Endpoints{Login: r.LoginURL, Token: r.TokenURL, Keys: r.KeysURL, Nodes: r.NodesURL}
	pc, ok := c.Profiles[r.Name]
	if !ok {
		return e
	}
	if preset, err := accounts.Environment(pc.Environment); pc.Environment != "" && err == nil {
		e = e.Override(preset)
	}
	if pc.AccountsURL != "" {
		e = e.Override(accounts.FromAccountsURL(pc.AccountsURL))
	}
	return e.Override(pc.Endpoints)
}

// hosts are the servers that a profile's tokens may be given to: those of the file,
// else the one of its Nodes API.
func (c Config) hosts(r store.Profile) dialect.Hosts {
	if list := c.Profiles[r.Name].Hosts; list != nil {
		return list
	}
	return dialect.HostOf(c.endpoints(r).Nodes)
}
