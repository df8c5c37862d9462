// Package config turns the bytes of config.toml into a Config and mistakes, and
// notices that they should be read again. It is pure except for reading files:
// what a daemon does with a Config, or with a mistake, is not decided here.
//
// It promises to report every mistake at once, so that a person mends a file in
// one go; but a file that TOML cannot be read from, or a value of the wrong type,
// is reported without the rest. A file that another user could have written is
// not read.
package config

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"maps"
	"slices"

	"bloq-agent/accounts"
	"bloq-agent/daemon/dialect"
	"bloq-agent/daemon/sink"
	"bloq-agent/store"
	"bloq-agent/store/trusted"
)

// Config is what config.toml says. None is needed: the zero Config has the
// defaults.
type Config struct {
	LogLevel   string // debug, info, warn, error; "" means info
	Store      string // for new profiles; "" means keyring
	NoLandlock bool   // let the daemon write wherever its user can
	Profiles   map[string]Profile

	Roots  *x509.CertPool // to trust; nil means the system's
	CAFile string         // what they were read from besides; "" for nothing
}

// A Profile overrides what the profile's login recorded.
type Profile struct {
	Environment string
	AccountsURL string
	Endpoints   accounts.Endpoints
	// Hosts are the servers that a tool may be given the token for; nil means
	// the one of the Nodes API, and an empty list none.
	Hosts          dialect.Hosts
	DockerUsername string // "" means bloq
	Sinks          []sink.Sink
}

// Endpoints are the URLs of a profile: those that its login recorded, overridden
// by the file.
func (c Config) Endpoints(r store.Profile) accounts.Endpoints {
	e := accounts.Endpoints{Login: r.LoginURL, Token: r.TokenURL, Keys: r.KeysURL, Nodes: r.NodesURL}
	p := c.Profiles[r.Name]
	if preset, err := accounts.Environment(p.Environment); p.Environment != "" && err == nil {
		e = e.Override(preset)
	}
	if p.AccountsURL != "" {
		e = e.Override(accounts.FromAccountsURL(p.AccountsURL))
	}
	return e.Override(p.Endpoints)
}

// Hosts are the servers that a profile's tokens may be given to: those of the
// file, else the one of its Nodes API.
func (c Config) Hosts(r store.Profile) dialect.Hosts {
	if list := c.Profiles[r.Name].Hosts; list != nil {
		return list
	}
	return dialect.HostOf(c.Endpoints(r).Nodes)
}

// Sinks are those of every profile.
func (c Config) Sinks() []sink.Sink {
	var all []sink.Sink
	for _, name := range slices.Sorted(maps.Keys(c.Profiles)) {
		all = append(all, c.Profiles[name].Sinks...)
	}
	return all
}

// Load reads the file at path, and returns its bytes too. They are nil if the
// file is not there, which is no mistake.
func Load(path string) (Config, []byte, error) {
	data, err := trusted.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, nil, nil
	}
	if err != nil {
		return Config{}, nil, err
	}
	c, err := Parse(path, data)
	return c, data, err
}

// The file as TOML types it. A pointer tells "" from a key that is not there.
type file struct {
	LogLevel  *string                 `toml:"log_level"`
	Store     *string                 `toml:"store"`
	TLSCAFile *string                 `toml:"tls_ca_file"`
	Landlock  bool                    `toml:"landlock"`
	Profile   map[string]profileTable `toml:"profile"`
}

type profileTable struct {
	Environment *string     `toml:"environment"`
	AccountsURL *string     `toml:"accounts_url"`
	LoginURL    *string     `toml:"login_url"`
	TokenURL    *string     `toml:"token_url"`
	KeysURL     *string     `toml:"keys_url"`
	NodesURL    *string     `toml:"nodes_url"`
	Hosts       []string    `toml:"hosts"`
	DockerUser  *string     `toml:"docker_username"`
	Sink        []sinkTable `toml:"sink"`
}

// Parse reads data, which came from path. The error has a line for each mistake:
// FILE:LINE: text if the decoder found it, else FILE: TABLE.KEY: text.
func Parse(path string, data []byte) (Config, error) {
	m := &mistakes{file: path, taken: map[string]string{}}
	f, ok := m.decode(data)
	if !ok {
		return Config{}, errors.Join(m.list...)
	}
	c := Config{
		LogLevel:   m.oneOf("log_level", f.LogLevel, "debug", "info", "warn", "error"),
		Store:      m.oneOf("store", f.Store, "keyring", "file", "memory"),
		NoLandlock: !f.Landlock,
		Profiles:   map[string]Profile{},
	}
	c.Roots, c.CAFile = m.roots("tls_ca_file", f.TLSCAFile)
	for _, name := range slices.Sorted(maps.Keys(f.Profile)) {
		c.Profiles[name] = m.profile(name, f.Profile[name])
	}
	return c, errors.Join(m.list...)
}
