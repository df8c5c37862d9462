//go:build linux

package sim

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"bloq-agent/store"
)

// A handle is an open file.
type handle struct {
	w      *view
	n      *inode
	path   string // in the volume
	flag   int
	at     int
	locks  bool
	closed bool
}

func (w *view) open(op, path string, f func() (*inode, string, error), flag int) (store.DiskFile, error) {
	h := &handle{w: w, flag: flag}
	err := w.run(op, path, func() (err error) {
		h.n, h.path, err = f()
		return err
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

const writable = os.O_WRONLY | os.O_RDWR

func (w *view) openOrCreate(path string, flag int, mode fs.FileMode) (*inode, error) {
	if n, err := w.vol.lookup(path); err == nil {
		switch {
		case flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
			return nil, syscall.EEXIST
		case n.mode.IsDir() && flag&writable != 0:
			return nil, syscall.EISDIR
		case flag&os.O_TRUNC == 0:
			return n, nil
		}
		err := w.refuse("open", path, false)
		if err == nil {
			n.set(nil, w.vol)
		}
		return n, err
	} else if err != syscall.ENOENT || flag&os.O_CREATE == 0 {
		return nil, err
	}
	dir, _, name, err := w.vol.place(path)
	if err == nil {
		err = w.refuse("open", path, true)
	}
	if err != nil {
		return nil, err
	}
	n := w.vol.newInode(mode.Perm())
	w.vol.apply(edit{dir, name, nil, n})
	return n, nil
}

func (n *inode) set(data []byte, v *volume) {
	n.data, n.dirty = data, true
	n.mtime, n.ctime = v.now(), v.now()
}

func (h *handle) Name() string { return h.w.prefix + h.path }

func (h *handle) run(op string, f func() error) error {
	return h.w.run(op, h.path, func() error {
		if h.closed {
			return fs.ErrClosed
		}
		return f()
	})
}

func (h *handle) Read(p []byte) (read int, err error) {
	err = h.run("read", func() error {
		switch {
		case h.n.mode.IsDir():
			return syscall.EISDIR
		case h.flag&os.O_WRONLY != 0:
			return syscall.EBADF
		case h.at >= len(h.n.data):
			return io.EOF
		}
		read = copy(p, h.n.data[h.at:])
		h.at += read
		return nil
	})
	return read, err
}

func (h *handle) Write(p []byte) (int, error) {
	err := h.run("write", func() error {
		if h.flag&writable == 0 {
			return syscall.EBADF
		}
		if err := h.w.refuse("write", h.path, true); err != nil {
			return err
		}
		if h.flag&os.O_APPEND != 0 {
			h.at = len(h.n.data)
		}
		data := make([]byte, max(len(h.n.data), h.at+len(p)))
		copy(data, h.n.data)
		copy(data[h.at:], p)
		h.at += len(p)
		h.n.set(data, h.w.vol)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (h *handle) Sync() error {
	if h.w.skipSync != nil && h.w.skipSync(h.path) {
		return nil
	}
	return h.run("sync", func() error {
		if err := h.w.refuse("sync", h.path, false); err != nil {
			return err
		}
		h.n.durable, h.n.dirty = h.n.data, false
		if h.n.mode.IsDir() {
			h.w.vol.commit(h.n)
		}
		return nil
	})
}

func (h *handle) Stat() (fi fs.FileInfo, err error) {
	err = h.run("stat", func() error {
		fi = h.n.info(filepath.Base(h.Name()))
		return nil
	})
	return fi, err
}

// Close takes no time and works on every disk.
func (h *handle) Close() error {
	h.w.vol.mu.Lock()
	defer h.w.vol.mu.Unlock()
	if h.closed {
		return fs.ErrClosed
	}
	h.closed = true
	if h.locks && h.n.holder == h.w {
		h.n.holder = nil
	}
	return nil
}
