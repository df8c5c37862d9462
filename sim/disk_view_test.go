//go:build linux

package sim

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bloq-agent/store/trusted"
)

// A view is what one daemon instance sees of the volume. Its hooks are set before
// the instance starts. They may block, kill the view or crash the volume.
type view struct {
	vol    *volume
	prefix string // "/sim/<instance>"
	nth    int    // of the volume's views, so that two instances differ in jitter
	dead   chan struct{}

	before   func(op, path string) error      // an error is the operation's
	after    func(op, path string, err error) // after it has taken effect
	skipSync func(path string) bool           // a disk that lies: sync does nothing
}

// open gives a new instance its view of v. It must be called in the bubble.
func (m *mux) open(v *volume) *view {
	m.mu.Lock()
	m.last++
	w := &view{vol: v, prefix: "/sim/" + strconv.Itoa(m.last), dead: make(chan struct{})}
	m.views[strconv.Itoa(m.last)] = w
	m.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	w.nth = len(v.views)
	v.views = append(v.views, w)
	return w
}

// forget drops the views of v when its history is over.
func (m *mux) forget(v *volume) {
	v.mu.Lock()
	views := slices.Clone(v.views)
	v.mu.Unlock()
	for _, w := range views {
		w.kill()
		m.mu.Lock()
		delete(m.views, strings.TrimPrefix(w.prefix, "/sim/"))
		m.mu.Unlock()
	}
}

// path is what a daemon of this instance is told for a path of the volume.
func (w *view) path(inside string) string { return w.prefix + filepath.Join("/", inside) }

// kill is what SIGKILL does: operations that wait end with EIO, all later ones
// fail, and locks are released. The volume loses nothing.
func (w *view) kill() {
	w.vol.mu.Lock()
	defer w.vol.mu.Unlock()
	if w.killed() {
		return
	}
	close(w.dead)
	for n := range w.vol.every() {
		if n.holder == w {
			n.holder = nil
		}
	}
}

func (w *view) killed() bool {
	select {
	case <-w.dead:
		return true
	default:
		return false
	}
}

// run does one operation: time passes, the disk may hang, then f takes effect under
// the volume's lock.
func (w *view) run(op, path string, f func() error) error {
	err := w.wait(op, path)
	if err == nil && w.before != nil {
		err = w.before(op, path)
	}
	if err == nil {
		err = w.act(f)
	}
	if w.after != nil {
		w.after(op, path, err)
	}
	if errno, ok := err.(syscall.Errno); ok {
		return &fs.PathError{Op: op, Path: w.prefix + path, Err: errno}
	}
	return err
}

func (w *view) act(f func() error) error {
	w.vol.mu.Lock()
	defer w.vol.mu.Unlock()
	if w.killed() {
		return syscall.EIO
	}
	return f()
}

func (w *view) wait(op, path string) error {
	select {
	case <-time.After(w.jitter(op, path)):
	case <-w.dead:
		return syscall.EIO
	}
	for gate := w.vol.gateFor(op); gate != nil; gate = w.vol.gateFor(op) {
		select {
		case <-gate:
		case <-w.dead:
			return syscall.EIO
		}
		time.Sleep(w.jitter("released "+op, path)) // not all that waited at one instant
	}
	return nil
}

// jitter hashes what the operation is and when it comes, so that it does not depend
// on the order in which goroutines come. Two that do the same at one instant go on
// together, until they do something else.
func (w *view) jitter(op, path string) time.Duration {
	low, high := 10*time.Microsecond, 2*time.Millisecond
	switch op {
	case "sync":
		low, high = time.Millisecond, 8*time.Millisecond
	case "lstat", "stat", "read", "readown", "glob":
		high = 200 * time.Microsecond
	}
	return spread(low, high, w.vol.seed, w.nth, op, aTemp.ReplaceAllString(path, "temp"), time.Now().UnixNano())
}

// aTemp is a name that counts those before it.
var aTemp = regexp.MustCompile(`[.]bloq-[0-9]+[.]tmp`)

// distrust is as much of package trusted as modes can break in a history.
func (w *view) distrust(path string, n *inode, own bool) error {
	name := w.prefix + path
	e := &trusted.Error{File: name, Path: name}
	switch {
	case n.mode.IsDir():
		e.Reason = "is not a regular file"
		return e
	case own && n.mode&0o077 != 0:
		e.Reason, e.Mend = fmt.Sprintf("is open to others, mode %04o", n.mode.Perm()), "chmod 600 "+name
		return e
	}
	for ; ; path = filepath.Dir(path) {
		if n, err := w.vol.lookup(path); err == nil && n.mode&0o002 != 0 {
			e.Path, e.Reason, e.Mend = w.prefix+path, "can be written by others", "chmod o-w "+w.prefix+path
			return e
		}
		if path == "/" {
			return nil
		}
	}
}

// othersReach reports whether no directory above path is closed to others.
func (w *view) othersReach(path string) bool {
	for path != "/" {
		path = filepath.Dir(path)
		if n, err := w.vol.lookup(path); err == nil && n.mode&0o001 == 0 {
			return false
		}
	}
	return true
}
