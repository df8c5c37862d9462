package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"bloq-agent/daemon/sink"
)

// sinkTable is [[profile.P.sink]] as TOML types it.
type sinkTable struct {
	Path    any `toml:"path"`
	Mode    any `toml:"mode"`
	Format  any `toml:"format"`
	Command any `toml:"command"`
}

// sinks reads the sinks of the profile called name, whose table is table.
func (m *mistakes) sinks(table, name string, list []sinkTable) []sink.Sink {
	var out []sink.Sink
	for i, t := range list {
		table := sinkName(table, i)
		s := sink.Sink{
			Profile: name,
			Path:    m.sinkPath(table, t.Path),
			Mode:    m.sinkMode(table, t.Mode),
			Format:  m.oneOf(table, "format", t.Format, "token", "header", "env", "json"),
			Command: m.command(table, t.Command),
		}
		if s.Format == "" {
			s.Format = "token"
		}
		out = append(out, s)
	}
	return out
}

// sinkName is how lineOf calls the table of the sink with the index i.
func sinkName(table string, i int) string { return fmt.Sprintf("%s.sink[%d]", table, i) }

// sinkPath is absolute and clean, or "" if there was a mistake in it.
func (m *mistakes) sinkPath(table string, v any) string {
	if v == nil {
		m.add(table, "path", "is missing")
		return ""
	}
	raw := m.text(table, "path", v)
	if raw == "" {
		return ""
	}
	path, err := expand(raw, os.Getenv)
	switch {
	case err != nil:
		m.add(table, "path", err.Error())
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		m.add(table, "path", "must not hold control characters")
	case !filepath.IsAbs(path):
		m.add(table, "path", "must be absolute, or begin with %t or %h")
	case strings.HasSuffix(path, "/") || filepath.Base(path) == "." || filepath.Base(path) == "..":
		m.add(table, "path", "names a directory")
	default:
		path = filepath.Clean(path)
		for _, own := range ownDirs(os.Getenv) {
			if path == own || strings.HasPrefix(path, own+"/") {
				m.add(table, "path", own+" is a directory of bloq-agent itself")
				return ""
			}
		}
		return path
	}
	return ""
}

// expand replaces what systemd.unit(5) calls specifiers: %t, %h and %%.
func expand(raw string, getenv func(string) string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			b.WriteByte(raw[i])
			continue
		}
		i++
		switch {
		case strings.HasPrefix(raw[i:], "t"):
			b.WriteString(runtimeDir(getenv))
		case strings.HasPrefix(raw[i:], "%"):
			b.WriteByte('%')
		case strings.HasPrefix(raw[i:], "h"):
			home := getenv("HOME")
			if !filepath.IsAbs(home) {
				home = passwdHome()
			}
			if !filepath.IsAbs(home) {
				return "", errors.New("%h: HOME is not set")
			}
			b.WriteString(filepath.Clean(home))
		default:
			return "", fmt.Errorf("%q: after %% comes t, h or %%", raw)
		}
	}
	return b.String(), nil
}

func runtimeDir(getenv func(string) string) string {
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Clean(dir)
	}
	return "/run/user/" + strconv.Itoa(os.Getuid())
}

// ownDirs are where our own files lie unless flags say otherwise.
func ownDirs(getenv func(string) string) []string {
	dirs := []string{filepath.Join(runtimeDir(getenv), "bloq-agent")}
	for _, place := range []func(func(string) string) (string, error){StateDir, KeyDir, ConfigPath} {
		if path, err := place(getenv); err == nil { // else there is none to protect
			dirs = append(dirs, strings.TrimSuffix(path, "/config.toml"))
		}
	}
	return dirs
}

// sinkMode: others may read, if the person says so, and no more.
func (m *mistakes) sinkMode(table string, v any) fs.FileMode {
	const usual = 0o600
	if v == nil {
		return usual
	}
	s, ok := v.(string)
	mode, err := strconv.ParseUint(s, 8, 16)
	switch {
	case !ok || err != nil || len(s) < 3 || len(s) > 4 || s[0] == '+':
		m.add(table, "mode", `must be an octal string such as "0600"`)
	case mode&^0o644 != 0:
		m.add(table, "mode", fmt.Sprintf("%q gives more than reading: at most 0644", s))
	case mode&0o400 == 0:
		m.add(table, "mode", fmt.Sprintf("%q: its owner must be able to read it", s))
	default:
		return fs.FileMode(mode)
	}
	return usual
}

// command is an argv, which no shell reads.
func (m *mistakes) command(table string, v any) []string {
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	var argv []string
	for _, word := range list {
		s, isString := word.(string)
		ok = ok && isString && !strings.Contains(s, "\x00")
		argv = append(argv, s)
	}
	switch {
	case !ok || len(argv) == 0:
		m.add(table, "command", `must be a list of strings: ["program", "argument"]`)
	case argv[0] == "" || strings.Contains(argv[0], "/") && !filepath.IsAbs(argv[0]):
		m.add(table, "command", fmt.Sprintf("%q is neither an absolute path nor a name to look for in $PATH", argv[0]))
	default:
		return argv
	}
	return nil
}

// sinksClash reports every path that two sinks share. The later one in the file
// is at fault.
func (m *mistakes) sinksClash(profiles map[string]ProfileConfig) {
	type place struct {
		path, table string
		line        int
	}
	var places []place
	for name, p := range profiles {
		for i, s := range p.Sinks {
			table := sinkName("profile."+plainKey(name), i)
			if s.Path != "" {
				places = append(places, place{s.Path, table, m.lineOf(table, "path")})
			}
		}
	}
	sort.Slice(places, func(i, j int) bool {
		a, b := places[i], places[j]
		return a.line < b.line || a.line == b.line && a.table < b.table
	})
	first := map[string]place{}
	for _, p := range places {
		if other, taken := first[p.path]; taken {
			m.add(p.table, "path", fmt.Sprintf("%s is the path of another sink too, line %d", p.path, other.line))
			continue
		}
		first[p.path] = p
	}
}
