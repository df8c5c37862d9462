//go:build linux

package sim

import (
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"syscall"
)

// What follows is for the person and for the checks. It takes no time, meets no fault
// and is durable at once.

func (v *volume) read(path string) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.lookup(path)
	if err != nil {
		return nil, err
	}
	if n.mode.IsDir() {
		return nil, syscall.EISDIR
	}
	return slices.Clone(n.data), nil
}

// write makes the file (0600) and its directories (0700) if need be.
func (v *volume) write(path string, data []byte) error {
	return v.byHand(filepath.Dir(path), func(dir *inode) error {
		name := filepath.Base(path)
		n := dir.entries[name]
		if n == nil {
			n = v.newInode(0o600)
			v.apply(edit{dir, name, nil, n})
		}
		if n.mode.IsDir() {
			return syscall.EISDIR
		}
		n.set(slices.Clone(data), v)
		n.durable, n.dirty = n.data, false
		return nil
	})
}

// delete is rm -rf.
func (v *volume) delete(path string) error {
	return v.byHand(filepath.Dir(path), func(dir *inode) error {
		name := filepath.Base(path)
		if dir.entries[name] == nil {
			return syscall.ENOENT
		}
		v.apply(edit{dir, name, dir.entries[name], nil})
		return nil
	})
}

// byHand makes dir and what f changes in it durable.
func (v *volume) byHand(dir string, f func(*inode) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.mkdirAll(dir, 0o700, func() error { return nil }); err != nil {
		return err
	}
	n, err := v.lookup(dir)
	if err == nil {
		err = f(n)
	}
	for ; err == nil; dir = filepath.Dir(dir) {
		n, _ := v.lookup(dir)
		v.commit(n)
		if dir == "/" {
			return nil
		}
	}
	return err
}

func (v *volume) chmod(path string, mode fs.FileMode) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.setMode(path, mode)
}

// list is the names in dir, sorted; none if it is no directory.
func (v *volume) list(dir string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.lookup(dir)
	if err != nil {
		return nil
	}
	return n.names()
}

// replaceDir is cp -a, rm -rf and mv: the directory has another inode afterwards.
func (v *volume) replaceDir(path string) error {
	s, err := v.snapshot(path)
	if err != nil {
		return err
	}
	return v.restore(s, path, false)
}

// A snapshot is a backup of a directory.
type snapshot struct{ root *inode }

func (v *volume) snapshot(path string) (*snapshot, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.lookup(path)
	if err != nil {
		return nil, err
	}
	if !n.mode.IsDir() {
		return nil, syscall.ENOTDIR
	}
	return &snapshot{v.copy(n)}, nil
}

// restore puts a backup at path: as another directory, or in the one that is there.
func (v *volume) restore(s *snapshot, path string, inPlace bool) error {
	return v.byHand(filepath.Dir(path), func(dir *inode) error {
		name := filepath.Base(path)
		there, copied := dir.entries[name], v.copy(s.root)
		if there == nil || !inPlace {
			v.apply(edit{dir, name, there, copied})
			return nil
		}
		var edits change
		for _, file := range there.names() {
			edits = append(edits, edit{there, file, there.entries[file], nil})
		}
		for _, file := range copied.names() {
			edits = append(edits, edit{there, file, nil, copied.entries[file]})
		}
		v.apply(edits...)
		v.commit(there)
		return nil
	})
}

// copy is durable, and has inodes of its own.
func (v *volume) copy(n *inode) *inode {
	c := v.newInode(n.mode)
	c.mtime, c.data, c.durable = n.mtime, n.data, n.data
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		c.entries[name] = v.copy(n.entries[name])
	}
	return c
}
