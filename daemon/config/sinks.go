package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"bloq-agent/daemon/sink"
)

// sinkTable is [[profile.P.sink]] as TOML types it.
type sinkTable struct {
	Path    *string  `toml:"path"`
	Mode    any      `toml:"mode"` // many write a number: the mistake shows a string
	Format  *string  `toml:"format"`
	Command []string `toml:"command"`
}

func (m *mistakes) sink(profile, table string, t sinkTable) sink.Sink {
	return sink.Sink{
		Profile: profile,
		Path:    m.sinkPath(table+".path", t.Path),
		Mode:    m.mode(table+".mode", t.Mode),
		Format:  cmp.Or(m.oneOf(table+".format", t.Format, "token", "header", "env", "json"), "token"),
		Command: m.command(table+".command", t.Command),
	}
}

// sinkPath is absolute and clean, and of one sink only; or "" if there was a
// mistake in it.
func (m *mistakes) sinkPath(key string, v *string) string {
	if v == nil {
		m.add(key, "is missing")
		return ""
	}
	raw := m.text(key, v)
	if raw == "" {
		return ""
	}
	path, err := absolute(raw, os.Getenv)
	if other := m.taken[path]; err == nil && other != "" {
		err = fmt.Errorf("%s is the path of another sink too, %s", path, other)
	}
	if err != nil {
		m.add(key, "%w", err)
		return ""
	}
	m.taken[path] = strings.TrimSuffix(key, ".path")
	return path
}

func absolute(raw string, getenv func(string) string) (string, error) {
	path, err := expand(raw, getenv)
	switch {
	case err != nil:
		return "", err
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", errors.New("must not hold control characters")
	case !filepath.IsAbs(path):
		return "", errors.New("must be absolute, or begin with %t or %h")
	case strings.HasSuffix(path, "/") || filepath.Base(path) == "." || filepath.Base(path) == "..":
		return "", errors.New("names a directory")
	}
	path = filepath.Clean(path)
	for _, own := range OwnDirs(getenv) {
		if path == own || strings.HasPrefix(path, own+"/") {
			return "", fmt.Errorf("%s is a directory of bloq-agent itself", own)
		}
	}
	return path, nil
}

// A specifier is one of systemd.unit(5), or a stray percent sign.
var specifier = regexp.MustCompile(`%[th%]?`)

// expand replaces %t, %h and %%.
func expand(raw string, getenv func(string) string) (path string, err error) {
	path = specifier.ReplaceAllStringFunc(raw, func(s string) string {
		switch s {
		case "%t":
			return runtimeDir(getenv)
		case "%h":
			if home(getenv) == "" {
				err = errors.New("%h: HOME is not set")
			}
			return home(getenv)
		case "%%":
			return "%"
		}
		err = fmt.Errorf("%q: after %% comes t, h or %%", raw)
		return ""
	})
	return path, err
}

var octal = regexp.MustCompile(`^[0-7]{3,4}$`)

// mode: others may read, if the person says so, and no more.
func (m *mistakes) mode(key string, v any) fs.FileMode {
	const usual = 0o600
	if v == nil {
		return usual
	}
	s, _ := v.(string)
	mode, _ := strconv.ParseUint(s, 8, 16) // octal knows better
	switch {
	case !octal.MatchString(s):
		m.add(key, `must be an octal string such as "0600"`)
	case mode&^0o644 != 0:
		m.add(key, "%q gives more than reading: at most 0644", s)
	case mode&0o400 == 0:
		m.add(key, "%q: its owner must be able to read it", s)
	default:
		return fs.FileMode(mode)
	}
	return usual
}

// command is an argv, which no shell reads.
func (m *mistakes) command(key string, argv []string) []string {
	switch {
	case argv == nil:
	case len(argv) == 0, slices.ContainsFunc(argv, func(word string) bool { return strings.Contains(word, "\x00") }):
		m.add(key, `must be a list of strings: ["program", "argument"]`)
	case argv[0] == "" || strings.Contains(argv[0], "/") && !filepath.IsAbs(argv[0]):
		m.add(key, "%q is neither an absolute path nor a name to look for in $PATH", argv[0])
	}
	return argv
}
