package daemon

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"bloq-agent/accounts"
	"bloq-agent/daemon/dialect"
	"bloq-agent/daemon/sink"
	"bloq-agent/ipc"
	"bloq-agent/store/trusted"

	"github.com/pelletier/go-toml/v2"
)

// Config is what config.toml says. None is needed: the zero file gives the
// defaults.
type Config struct {
	LogLevel  string // debug, info, warn, error; "" means info
	Store     string // for new profiles; "" means keyring
	TLSCAFile string // PEM; trusted besides the system's
	// NoLandlock lets the daemon write wherever its user can.
	NoLandlock bool
	Profiles   map[string]ProfileConfig

	roots    *x509.CertPool // nil: the system's
	rootsPEM []byte         // what TLSCAFile held
}

// ProfileConfig overrides what the profile's login recorded.
type ProfileConfig struct {
	Environment string
	AccountsURL string
	Endpoints   accounts.Endpoints
	// Hosts are the servers that a tool may be given the token for; nil means
	// the one of the Nodes API.
	Hosts          dialect.Hosts
	DockerUsername string // "" means bloq
	Sinks          []sink.Sink
}

// Roots are the certificates to trust, or nil for the system's.
func (c Config) Roots() *x509.CertPool { return c.roots }

// ConfigPath is where the configuration is looked for:
// $XDG_CONFIG_HOME/bloq-agent/config.toml, else below ~/.config.
func ConfigPath(getenv func(string) string) (string, error) {
	return xdgFile(getenv, "XDG_CONFIG_HOME", ".config", "config.toml")
}

// KeyDir is where the key of the file store lies: $XDG_DATA_HOME/bloq-agent,
// else below ~/.local/share. It is not the state directory, so that a copy of
// that one opens nothing.
func KeyDir(getenv func(string) string) (string, error) {
	return xdgFile(getenv, "XDG_DATA_HOME", ".local/share", "")
}

// StateDir is where profiles.json lies: $XDG_STATE_HOME/bloq-agent, else below
// ~/.local/state.
func StateDir(getenv func(string) string) (string, error) {
	return xdgFile(getenv, "XDG_STATE_HOME", ".local/state", "")
}

// xdgFile never gives a relative path: secrets must not end up where somebody
// happened to stand.
func xdgFile(getenv func(string) string, variable, fallback, file string) (string, error) {
	dir := getenv(variable)
	// The specification says to ignore a relative path.
	if !filepath.IsAbs(dir) {
		home := getenv("HOME")
		if !filepath.IsAbs(home) {
			home = passwdHome()
		}
		if !filepath.IsAbs(home) {
			return "", fmt.Errorf("neither HOME nor %s is set", variable)
		}
		dir = filepath.Join(home, fallback)
	}
	return filepath.Join(dir, "bloq-agent", file), nil
}

// passwdHome is the home directory that the system knows of, or "". A service
// without a login has no HOME. Tests replace it.
var passwdHome = func() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.HomeDir
}

// LoadConfig reads the file at path, and returns its bytes too. A file that is
// not there is no mistake; the error of one that is wrong names every mistake,
// each as FILE:LINE: text.
func LoadConfig(path string) (Config, []byte, error) {
	data, err := trusted.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, nil, nil
	}
	if err != nil {
		return Config{}, nil, err
	}
	c, err := ParseConfig(path, data)
	return c, data, err
}

// The file as TOML types it. Leaves are any, so that a wrong type is one
// mistake among others instead of the end of the reading.
type file struct {
	LogLevel  any `toml:"log_level"`
	Store     any `toml:"store"`
	TLSCAFile any `toml:"tls_ca_file"`
	Landlock  any `toml:"landlock"`
	Profile   map[string]struct {
		Environment any `toml:"environment"`
		AccountsURL any `toml:"accounts_url"`
		LoginURL    any `toml:"login_url"`
		TokenURL    any `toml:"token_url"`
		KeysURL     any `toml:"keys_url"`
		NodesURL    any `toml:"nodes_url"`
		Hosts       any `toml:"hosts"`
		DockerUser  any `toml:"docker_username"`

		Sink []sinkTable `toml:"sink"`
	} `toml:"profile"`
}

// ParseConfig reads data, which came from path.
func ParseConfig(path string, data []byte) (Config, error) {
	m := &mistakes{path: path, lines: strings.Split(string(data), "\n")}
	f, ok := m.decode(data)
	if !ok {
		return Config{}, m.err()
	}
	c := Config{
		LogLevel:  m.oneOf("", "log_level", f.LogLevel, "debug", "info", "warn", "error"),
		Store:     m.oneOf("", "store", f.Store, "keyring", "file", "memory"),
		TLSCAFile: m.text("", "tls_ca_file", f.TLSCAFile), NoLandlock: !m.truth("", "landlock", f.Landlock, true),
		Profiles: map[string]ProfileConfig{},
	}
	if c.TLSCAFile != "" {
		c.roots, c.rootsPEM = m.roots(c.TLSCAFile)
	}
	for name, p := range f.Profile {
		table := "profile." + plainKey(name)
		if !ipc.ValidProfile(name) {
			m.add(table, "", fmt.Sprintf("no profile can be called %q (a-z, 0-9, _ and -, at most 32)", name))
		}
		pc := ProfileConfig{
			Environment: m.oneOf(table, "environment", p.Environment, "prod", "staging", "local"),
			AccountsURL: m.url(table, "accounts_url", p.AccountsURL),
			Endpoints: accounts.Endpoints{
				Login: m.url(table, "login_url", p.LoginURL), Token: m.url(table, "token_url", p.TokenURL),
				Keys: m.url(table, "keys_url", p.KeysURL), Nodes: m.url(table, "nodes_url", p.NodesURL),
			},
		}
		pc.Hosts = m.hosts(table, p.Hosts)
		pc.DockerUsername = m.text(table, "docker_username", p.DockerUser)
		pc.Sinks = m.sinks(table, name, p.Sink)
		c.Profiles[name] = pc
	}
	m.sinksClash(c.Profiles)
	return c, m.err()
}

// mistakes collects what is wrong with a file, so that a person mends it in
// one go.
type mistakes struct {
	path  string
	lines []string
	list  []mistake
}

type mistake struct {
	line int // from 1; 0 if unknown
	err  error
}

// decode reports false if the file is no TOML, for then nothing else can be
// said of it.
func (m *mistakes) decode(data []byte) (f file, ok bool) {
	d := toml.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	err := d.Decode(&f)
	var unknown *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case err == nil:
		return f, true
	case errors.As(err, &unknown):
		for _, e := range unknown.Errors {
			row, _ := e.Position()
			m.list = append(m.list, mistake{row, fmt.Errorf("unknown key %q", strings.Join(e.Key(), "."))})
		}
		return f, true
	case errors.As(err, &bad):
		row, _ := bad.Position()
		text := strings.TrimPrefix(bad.Error(), "toml: ")
		if strings.Contains(text, "cannot decode") { // it names types of Go
			text = strings.Join(bad.Key(), ".") + ": must be a table"
		}
		m.list = append(m.list, mistake{row, errors.New(text)})
	default:
		m.list = append(m.list, mistake{0, err})
	}
	return f, false
}

func (m *mistakes) text(table, key string, v any) string {
	if v == nil {
		return ""
	}
	s, ok := v.(string)
	switch {
	case !ok:
		m.add(table, key, "must be a string")
	case s == "":
		m.add(table, key, "must not be empty")
	}
	return s
}

// truth is v, or fallback if there is none.
func (m *mistakes) truth(table, key string, v any, fallback bool) bool {
	b, ok := v.(bool)
	switch {
	case v == nil:
		return fallback
	case !ok:
		m.add(table, key, "must be true or false")
		return fallback
	}
	return b
}

func (m *mistakes) oneOf(table, key string, v any, allowed ...string) string {
	s := m.text(table, key, v)
	if s != "" && !slices.Contains(allowed, s) {
		m.add(table, key, fmt.Sprintf("%q is none of %s", s, strings.Join(allowed, ", ")))
	}
	return s
}

func (m *mistakes) url(table, key string, v any) string {
	s := m.text(table, key, v)
	if s == "" {
		return ""
	}
	if err := (accounts.Endpoints{Token: s}).Check(); err != nil {
		m.add(table, key, strings.TrimPrefix(err.Error(), "token url: "))
	}
	return s
}

// hosts is nil if there are none in the file, and not nil if there is an empty
// list: then no tool that names a host is given the token.
func (m *mistakes) hosts(table string, v any) dialect.Hosts {
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		m.add(table, "hosts", "must be a list of strings")
		return nil
	}
	hosts := dialect.Hosts{}
	for _, entry := range list {
		s, ok := entry.(string)
		if !ok {
			m.add(table, "hosts", "must be a list of strings")
			continue
		}
		h, err := dialect.ParseHost(s)
		if err != nil {
			m.add(table, "hosts", fmt.Sprintf("%.200q %v", s, err))
		}
		hosts = append(hosts, h...)
	}
	return hosts
}

func (m *mistakes) roots(path string) (*x509.CertPool, []byte) {
	if !filepath.IsAbs(path) {
		m.add("", "tls_ca_file", "must be an absolute path")
		return nil, nil
	}
	pem, err := trusted.ReadFile(path)
	if err != nil {
		m.list = append(m.list, mistake{m.lineOf("", "tls_ca_file"), fmt.Errorf("tls_ca_file: %w", err)})
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		m.add("", "tls_ca_file", path+" holds no certificate")
	}
	return pool, pem
}

func (m *mistakes) add(table, key, text string) {
	if key != "" {
		text = key + ": " + text
	}
	m.list = append(m.list, mistake{m.lineOf(table, key), errors.New(text)})
}

// lineOf finds a key by looking, since the decoder keeps no positions of what
// it accepts. The first [[x]] is called x[0]. What is not found itself is said to
// be where the array's table or a table below begins; keys in inline tables name
// the line of their array, or none.
func (m *mistakes) lineOf(table, key string) int {
	current, fallback := "", 0
	array, _, inArray := strings.Cut(table, "[")
	seen := map[string]int{}
	for i, l := range m.lines {
		l = strings.TrimSpace(l)
		if strings.HasPrefix(l, "[") {
			current = plainKey(strings.Trim(strings.SplitN(l, "#", 2)[0], "[] \t"))
			if name := current; strings.HasPrefix(l, "[[") || inArray && name == array {
				current = fmt.Sprintf("%s[%d]", name, seen[name])
				seen[name]++
			}
			if inArray && current == table || fallback == 0 && strings.HasPrefix(current, array+".") {
				fallback = i + 1
			}
			if key == "" && current == table {
				return i + 1
			}
			continue
		}
		name, _, found := strings.Cut(l, "=")
		name = plainKey(name)
		if current != "" {
			name = current + "." + name
		}
		if found && name == strings.Trim(table+"."+key, ".") {
			return i + 1
		}
		if found && inArray && name == array {
			fallback = i + 1
		}
	}
	return fallback
}

// plainKey is a key without its quotes and spaces.
func plainKey(s string) string {
	return strings.NewReplacer(`"`, "", "'", "", " ", "", "\t", "").Replace(s)
}

func (m *mistakes) err() error {
	sort.SliceStable(m.list, func(i, j int) bool { return m.list[i].line < m.list[j].line })
	errs := make([]error, 0, len(m.list))
	for _, x := range m.list {
		if x.line == 0 {
			errs = append(errs, &mistakeError{m.path, x.err})
			continue
		}
		errs = append(errs, &mistakeError{fmt.Sprintf("%s:%d", m.path, x.line), x.err})
	}
	return errors.Join(errs...)
}

// A mistakeError says where a mistake is. What the file says in it is shown
// escaped.
type mistakeError struct {
	at  string
	err error
}

func (e *mistakeError) Error() string { return ipc.Visible(e.at + ": " + e.err.Error()) }

func (e *mistakeError) Unwrap() error { return e.err }
