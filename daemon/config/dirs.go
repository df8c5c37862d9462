package config

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// Path is where the configuration is looked for:
// $XDG_CONFIG_HOME/bloq-agent/config.toml, else below ~/.config.
func Path(getenv func(string) string) (string, error) {
	dir, err := configDir(getenv)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "config.toml"), nil
}

func configDir(getenv func(string) string) (string, error) {
	return xdgDir(getenv, "XDG_CONFIG_HOME", ".config")
}

// KeyDir has the key of the file store: $XDG_DATA_HOME/bloq-agent, else below
// ~/.local/share. It is not the state directory, so that a copy of that one opens
// nothing.
func KeyDir(getenv func(string) string) (string, error) {
	return xdgDir(getenv, "XDG_DATA_HOME", ".local/share")
}

// StateDir has profiles.json: $XDG_STATE_HOME/bloq-agent, else below
// ~/.local/state.
func StateDir(getenv func(string) string) (string, error) {
	return xdgDir(getenv, "XDG_STATE_HOME", ".local/state")
}

// OwnDirs are the directories of our own files unless flags say otherwise.
func OwnDirs(getenv func(string) string) []string {
	dirs := []string{filepath.Join(runtimeDir(getenv), "bloq-agent")}
	for _, place := range []func(func(string) string) (string, error){StateDir, KeyDir, configDir} {
		if dir, err := place(getenv); err == nil { // else there is none to protect
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// xdgDir never gives a relative path: secrets must not end up where somebody
// happened to stand.
func xdgDir(getenv func(string) string, variable, fallback string) (string, error) {
	dir := getenv(variable)
	// The specification says to ignore a relative path.
	if !filepath.IsAbs(dir) {
		h := home(getenv)
		if h == "" {
			return "", fmt.Errorf("neither HOME nor %s is set", variable)
		}
		dir = filepath.Join(h, fallback)
	}
	return filepath.Join(dir, "bloq-agent"), nil
}

// home is the home directory, or "".
func home(getenv func(string) string) string {
	dir := getenv("HOME")
	if !filepath.IsAbs(dir) {
		dir = passwdHome()
	}
	if !filepath.IsAbs(dir) {
		return ""
	}
	return filepath.Clean(dir)
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

func runtimeDir(getenv func(string) string) string {
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Clean(dir)
	}
	return "/run/user/" + strconv.Itoa(os.Getuid())
}
