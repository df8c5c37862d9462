package config

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"bloq-agent/accounts"
	"bloq-agent/daemon/dialect"
	"bloq-agent/ipc"
	"bloq-agent/store/trusted"

	"github.com/pelletier/go-toml/v2"
)

// mistakes collects what is wrong with a file. Its methods turn what TOML has
// into what we want.
type mistakes struct {
	file  string
	list  []error
	taken map[string]string // the path of a sink to the key that names it
}

// A mistake says where it is. The file's own words in it are shown escaped.
type mistake struct {
	at  string
	err error
}

func (e *mistake) Error() string { return ipc.Visible(e.at + ": " + e.err.Error()) }

func (e *mistake) Unwrap() error { return e.err }

func (m *mistakes) add(key, format string, args ...any) {
	m.list = append(m.list, &mistake{m.file + ": " + key, fmt.Errorf(format, args...)})
}

// wrongType is how go-toml says that a value is of the wrong type, with the type
// of Go that was wanted.
var wrongType = regexp.MustCompile(`^toml: cannot (?:decode TOML|store an?) (.+?) (?:into .* of type|in an?) (.+)$`)

// typeNames are the types of file and what is in it, as TOML knows them. All
// others are tables.
var typeNames = map[string]string{"string": "string", "bool": "true or false", "[]string": "list of strings"}

// decode reports false if nothing more can be said of the file.
func (m *mistakes) decode(data []byte) (f file, ok bool) {
	f.Landlock = true
	d := toml.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(&f)
	at := func(e *toml.DecodeError, text string) {
		row, _ := e.Position()
		m.list = append(m.list, &mistake{m.file + ":" + strconv.Itoa(row), errors.New(text)})
	}
	var unknown *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		for _, e := range unknown.Errors {
			at(&e, fmt.Sprintf("unknown key %q", strings.Join(e.Key(), ".")))
		}
		return f, true
	case errors.As(err, &bad):
		text := strings.TrimPrefix(bad.Error(), "toml: ")
		if found := wrongType.FindStringSubmatch(bad.Error()); found != nil {
			wanted := cmp.Or(typeNames[found[2]], "table")
			text = fmt.Sprintf("%s: expected %s, found %s", strings.Join(bad.Key(), "."), wanted, found[1])
		}
		at(bad, text)
	case err != nil:
		m.list = append(m.list, &mistake{m.file, err})
	}
	return f, err == nil
}

func (m *mistakes) profile(name string, t profileTable) Profile {
	table := "profile." + name
	if !ipc.ValidProfile(name) {
		table = "profile." + strconv.Quote(name)
		m.add(table, "no profile can be called that (a-z, 0-9, _ and -, at most 32)")
	}
	p := Profile{
		Environment: m.oneOf(table+".environment", t.Environment, "prod", "staging", "local"),
		AccountsURL: m.url(table+".accounts_url", t.AccountsURL),
		Endpoints: accounts.Endpoints{
			Login: m.url(table+".login_url", t.LoginURL), Token: m.url(table+".token_url", t.TokenURL),
			Keys: m.url(table+".keys_url", t.KeysURL), Nodes: m.url(table+".nodes_url", t.NodesURL),
		},
		Hosts:          m.hosts(table+".hosts", t.Hosts),
		DockerUsername: m.text(table+".docker_username", t.DockerUser),
	}
	for i, s := range t.Sink {
		p.Sinks = append(p.Sinks, m.sink(name, fmt.Sprintf("%s.sink[%d]", table, i), s))
	}
	return p
}

func (m *mistakes) text(key string, v *string) string {
	if v == nil {
		return ""
	}
	if *v == "" {
		m.add(key, "must not be empty")
	}
	return *v
}

func (m *mistakes) oneOf(key string, v *string, allowed ...string) string {
	s := m.text(key, v)
	if s != "" && !slices.Contains(allowed, s) {
		m.add(key, "%q is none of %s", s, strings.Join(allowed, ", "))
	}
	return s
}

func (m *mistakes) url(key string, v *string) string {
	s := m.text(key, v)
	if s == "" {
		return ""
	}
	if err := (accounts.Endpoints{Token: s}).Check(); err != nil {
		m.add(key, "%s", strings.TrimPrefix(err.Error(), "token url: "))
	}
	return s
}

func (m *mistakes) hosts(key string, list []string) dialect.Hosts {
	if list == nil {
		return nil
	}
	hosts := dialect.Hosts{}
	for _, s := range list {
		h, err := dialect.ParseHost(s)
		if err != nil {
			m.add(key, "%.200q %w", s, err)
		}
		hosts = append(hosts, h...)
	}
	return hosts
}

// roots are the system's certificates, as Go has read them, and those in the file
// that v names.
func (m *mistakes) roots(key string, v *string) (*x509.CertPool, string) {
	path := m.text(key, v)
	if path == "" {
		return nil, ""
	}
	if !filepath.IsAbs(path) {
		m.add(key, "must be an absolute path")
		return nil, ""
	}
	pem, err := trusted.ReadFile(path)
	if err != nil {
		m.add(key, "%w", err)
		return nil, ""
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		m.add(key, "%s holds no certificate", path)
	}
	return pool, path
}
