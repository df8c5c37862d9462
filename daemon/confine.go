package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"bloq-agent/accounts/loopback"
	"bloq-agent/daemon/harden"
	"bloq-agent/ipc"
)

// A confinement is where the process can write from some moment on.
type confinement struct {
	dirs   []string // nil while it can write everywhere
	abi    int
	reason error       // why it can
	state  fs.FileInfo // the state directory then; nil if it was not there

	loopback error // why who listens on this machine cannot be told
}

var errNotConfined = errors.New("the daemon has not started yet")

// confine is called when everything outside of writable has been opened. It
// holds for the rest of the process: a configuration that says otherwise
// later, or names another directory, needs a restart.
func (d *Daemon) confine() {
	c := &confinement{}
	defer d.confined.Store(c)
	switch dirs := d.writable(); {
	case !d.options.Confine:
		c.reason = errors.New("not asked for")
	case d.config.get().NoLandlock:
		c.reason = errors.New("the configuration says landlock = false")
	default:
		c.state, _ = os.Stat(d.options.StateDir)
		if c.abi, c.reason = harden.Confine(dirs, ownSocket{d}.ground()); c.reason == nil {
			c.dirs = dirs
		} else {
			d.log.Warn().Err(c.reason).Msg("writes are not confined; going on without")
		}
	}
	if d.outside.Dial == nil {
		c.loopback = loopback.Check() // as things are from now on
	}
}

// writable are the directories that the daemon, and what it starts, write in:
// its own, those of its sinks, and those of sinks that it still has to remove.
// What is not there when it starts can't be made later.
func (d *Daemon) writable() []string {
	dirs := slices.Concat([]string{d.options.StateDir}, d.options.Writes)
	add := func(path string) {
		dir := filepath.Dir(path)
		if _, err := os.Stat(dir); err == nil && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, s := range d.config.get().Sinks() {
		add(s.Path)
	}
	for _, path := range d.sinks.Paths() {
		add(path)
	}
	return dirs
}

// needsRestart reports whether it is the confinement that keeps the process from
// writing in the directory path, where it has just been refused: a new
// configuration names it, or its disk has been mounted since.
func (d *Daemon) needsRestart(path string) bool {
	c := d.confined.Load()
	if c == nil || c.dirs == nil {
		return false
	}
	return syscall.Access(path, 2) == nil || !slices.ContainsFunc(c.dirs, func(dir string) bool {
		below, err := filepath.Rel(dir, path)
		return err == nil && below != ".." && !strings.HasPrefix(below, "../")
	})
}

// cannotKeep reports whether it is the confinement that keeps the process from writing
// in the state directory, because another one was there when it began, or none.
func (d *Daemon) cannotKeep() bool {
	c := d.confined.Load()
	if c == nil || c.dirs == nil {
		return false
	}
	now, err := os.Stat(d.options.StateDir)
	return err == nil && (c.state == nil || !os.SameFile(c.state, now))
}

func (d *Daemon) hardening() ipc.Hardening {
	now := harden.Now()
	h := ipc.Hardening{Dumpable: now.Dumpable, CoreLimit: now.CoreLimit, UserNamespace: now.UserNamespace}
	c := d.confined.Load()
	if c == nil {
		c = &confinement{reason: errNotConfined}
	}
	if c.loopback != nil {
		h.Loopback = c.loopback.Error()
	}
	if c.reason != nil {
		h.Landlock = "not in force: " + c.reason.Error()
		return h
	}
	h.Landlock, h.Writable = fmt.Sprintf("ABI %d", c.abi), c.dirs
	return h
}
