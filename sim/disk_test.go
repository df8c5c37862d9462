//go:build linux

package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"bloq-agent/store"
	"bloq-agent/store/trusted"
)

// A mux is the only store.Disk of the process. It leads /sim/<instance>/… to the
// view of that daemon instance, so a killed instance and its successor never share
// a path.
type mux struct {
	mu    sync.Mutex
	last  int
	views map[string]*view
}

var disks = &mux{views: map[string]*view{}}

// installDisk puts disks under package store. It must run before any daemon starts,
// and is never undone: goroutines of killed instances may outlive a history.
var installDisk = sync.OnceFunc(func() { store.ReplaceDisk(disks) })

// root is what / and /sim are for every instance.
var root = &inode{ino: 1, mode: fs.ModeDir | 0o755}

// find returns the view that path belongs to, and the path inside the volume.
func (m *mux) find(op, path string) (*view, string, error) {
	rest, ok := strings.CutPrefix(filepath.Clean(path), "/sim/")
	if !ok {
		return nil, "", &fs.PathError{Op: op, Path: path, Err: syscall.ENOENT}
	}
	instance, rest, _ := strings.Cut(rest, "/")
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.views[instance]
	if w == nil {
		return nil, "", &fs.PathError{Op: op, Path: path, Err: syscall.EIO}
	}
	return w, "/" + rest, nil
}

func (m *mux) OpenFile(path string, flag int, mode fs.FileMode) (store.DiskFile, error) {
	w, path, err := m.find("open", path)
	if err != nil {
		return nil, err
	}
	return w.open("open", path, func() (*inode, string, error) {
		n, err := w.openOrCreate(path, flag, mode)
		return n, path, err
	}, flag)
}

func (m *mux) Read(path string) ([]byte, error)    { return m.read("read", path, false) }
func (m *mux) ReadOwn(path string) ([]byte, error) { return m.read("readown", path, true) }

func (m *mux) read(op, path string, own bool) (data []byte, err error) {
	w, path, err := m.find(op, path)
	if err != nil {
		return nil, err
	}
	err = w.run(op, path, func() error {
		n, err := w.vol.lookup(path)
		if err != nil {
			return err
		}
		if err := w.distrust(path, n, own); err != nil {
			return err
		}
		data = slices.Clone(n.data)
		return nil
	})
	return data, err
}

// CheckOwn is as much of trusted.CheckOwn as modes can break in a history.
func (m *mux) CheckOwn(path string, want fs.FileMode) error {
	w, path, err := m.find("lstat", path)
	if err != nil {
		return err
	}
	return w.run("lstat", path, func() error {
		n, err := w.vol.lookup(path)
		e := &trusted.Error{File: w.prefix + path, Path: w.prefix + path}
		switch {
		case err != nil:
			return err
		case n.mode.Type() != want && want == fs.ModeDir:
			e.Reason = "is not a directory"
		case n.mode.Type() != want:
			e.Reason = "is not a regular file"
		case n.mode&0o002 != 0 && w.othersReach(path):
			e.Reason, e.Mend = "can be written by others", "chmod go-w "+w.prefix+path
		default:
			return nil
		}
		return e
	})
}

// CreateTemp counts, so that a replayed history has the same names.
func (m *mux) CreateTemp(dir, pattern string) (store.DiskFile, error) {
	w, dir, err := m.find("open", dir)
	if err != nil {
		return nil, err
	}
	return w.open("createtemp", filepath.Join(dir, pattern), func() (*inode, string, error) {
		w.vol.temps++
		before, after, _ := strings.Cut(pattern, "*")
		path := filepath.Join(dir, before+strconv.Itoa(w.vol.temps)+after)
		n, err := w.openOrCreate(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		return n, path, err
	}, os.O_RDWR)
}

func (m *mux) MkdirAll(path string, mode fs.FileMode) error {
	w, path, err := m.find("mkdir", path)
	if err != nil {
		return err
	}
	return w.run("mkdir", path, func() error {
		return w.vol.mkdirAll(path, mode, func() error { return w.refuse("mkdir", path, true) })
	})
}

func (m *mux) Rename(from, to string) error {
	w, a, err := m.find("rename", from)
	if err != nil {
		return err
	}
	other, b, err := m.find("rename", to)
	if err != nil {
		return err
	}
	if w != other {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: syscall.EXDEV}
	}
	err = w.run("rename", b, func() error {
		if err := w.refuse("rename", b, false); err != nil {
			return err
		}
		return w.vol.rename(a, b)
	})
	var e *fs.PathError
	if errors.As(err, &e) {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: e.Err}
	}
	return err
}

func (m *mux) Remove(path string) error {
	w, path, err := m.find("remove", path)
	if err != nil {
		return err
	}
	return w.run("remove", path, func() error {
		if err := w.refuse("remove", path, false); err != nil {
			return err
		}
		return w.vol.remove(path)
	})
}

func (m *mux) Chmod(path string, mode fs.FileMode) error {
	w, path, err := m.find("chmod", path)
	if err != nil {
		return err
	}
	return w.run("chmod", path, func() error {
		if err := w.refuse("chmod", path, false); err != nil {
			return err
		}
		return w.vol.setMode(path, mode)
	})
}

func (m *mux) Lstat(path string) (fi fs.FileInfo, err error) {
	if clean := filepath.Clean(path); clean == "/" || clean == "/sim" {
		return root.info(clean), nil
	}
	w, path, err := m.find("lstat", path)
	if err != nil {
		return nil, err
	}
	err = w.run("lstat", path, func() error {
		n, err := w.vol.lookup(path)
		if err == nil {
			fi = n.info(filepath.Base(w.prefix + path))
		}
		return err
	})
	return fi, err
}

// Stat is Lstat: a volume has no links.
func (m *mux) Stat(path string) (fs.FileInfo, error) { return m.Lstat(path) }

// Glob knows patterns in the last element only.
func (m *mux) Glob(pattern string) (list []string, err error) {
	w, inside, err := m.find("glob", pattern)
	if err != nil {
		return nil, nil // as filepath.Glob, which ignores I/O errors
	}
	dir, last := filepath.Split(inside)
	_ = w.run("glob", inside, func() error {
		n, err := w.vol.lookup(dir)
		if err != nil {
			return err
		}
		for _, name := range n.names() {
			if ok, _ := filepath.Match(last, name); ok {
				list = append(list, w.prefix+filepath.Join(dir, name))
			}
		}
		return nil
	})
	return list, nil
}

func (m *mux) Lock(dir string) (store.DiskFile, error) {
	w, path, err := m.find("open", dir)
	if err != nil {
		return nil, err
	}
	held, err := w.open("lock", path, func() (*inode, string, error) {
		n, err := w.vol.lookup(path)
		if err == nil && n.holder != nil {
			err = store.ErrInUse
		}
		if err == nil {
			n.holder = w
		}
		return n, path, err
	}, os.O_RDONLY)
	if errors.Is(err, store.ErrInUse) {
		return nil, fmt.Errorf("%s: %w", dir, store.ErrInUse)
	}
	if err != nil {
		return nil, err
	}
	held.(*handle).locks = true
	return held, nil
}
