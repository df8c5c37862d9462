//go:build linux

package sim

import (
	"cmp"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A volume is a machine's journalling file system. What was written is volatile
// until it is synced: the content with its file, the names with their directory.
type volume struct {
	seed uint64
	now  func() time.Time

	mu      sync.Mutex // never held over a wait
	root    *inode
	inodes  uint64
	temps   int
	pending []change // of names, in order
	views   []*view
	faults  faults
}

type inode struct {
	ino          uint64
	mode         fs.FileMode
	mtime, ctime time.Time
	data         []byte // as processes see it; replaced, never modified
	durable      []byte // as a crash leaves it
	dirty        bool
	entries      map[string]*inode // of a directory
	holder       *view             // has it locked
}

// A change of names happens as a whole.
type change []edit

type edit struct {
	dir           *inode
	name          string
	before, after *inode
}

// newVolume is empty: its root alone.
func newVolume(seed uint64, now func() time.Time) *volume {
	v := &volume{seed: seed, now: now, inodes: 1}
	v.root = v.newInode(fs.ModeDir | 0o755)
	return v
}

func (v *volume) newInode(mode fs.FileMode) *inode {
	v.inodes++
	n := &inode{ino: v.inodes, mode: mode, mtime: v.now(), ctime: v.now()}
	if mode.IsDir() {
		n.entries = map[string]*inode{}
	}
	return n
}

func (n *inode) names() []string { return slices.Sorted(maps.Keys(n.entries)) }

func (n *inode) info(name string) fs.FileInfo {
	kind := uint32(syscall.S_IFREG)
	if n.mode.IsDir() {
		kind = syscall.S_IFDIR
	}
	return fileInfo{name, n.mode, n.mtime, syscall.Stat_t{
		Dev: 77, Ino: n.ino, Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid()), Mode: kind | uint32(n.mode.Perm()), Nlink: 1,
		Size: int64(len(n.data)), Mtim: syscall.NsecToTimespec(n.mtime.UnixNano()), Ctim: syscall.NsecToTimespec(n.ctime.UnixNano()),
	}}
}

type fileInfo struct {
	name  string
	mode  fs.FileMode
	mtime time.Time
	stat  syscall.Stat_t
}

func (f fileInfo) Name() string       { return f.name }
func (f fileInfo) Size() int64        { return f.stat.Size }
func (f fileInfo) Mode() fs.FileMode  { return f.mode }
func (f fileInfo) ModTime() time.Time { return f.mtime }
func (f fileInfo) IsDir() bool        { return f.mode.IsDir() }
func (f fileInfo) Sys() any           { return &f.stat }

func (v *volume) lookup(path string) (*inode, error) {
	n := v.root
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		if !n.mode.IsDir() {
			return nil, syscall.ENOTDIR
		}
		if n = n.entries[name]; n == nil {
			return nil, syscall.ENOENT
		}
	}
	return n, nil
}

// place is the directory of path, what is there (nil for nothing), and the name.
func (v *volume) place(path string) (dir, there *inode, name string, err error) {
	up, name := filepath.Split(filepath.Clean(path))
	dir, err = v.lookup(up)
	switch {
	case err != nil:
		return nil, nil, "", err
	case name == "":
		return nil, nil, "", syscall.EBUSY
	case !dir.mode.IsDir():
		return nil, nil, "", syscall.ENOTDIR
	}
	return dir, dir.entries[name], name, nil
}

// apply makes a change, which stays pending until its directory is synced.
func (v *volume) apply(edits ...edit) {
	for _, e := range edits {
		e.dir.put(e.name, e.after)
		e.dir.mtime, e.dir.ctime = v.now(), v.now()
	}
	v.pending = append(v.pending, edits)
}

func (n *inode) put(name string, there *inode) {
	if there == nil {
		delete(n.entries, name)
		return
	}
	n.entries[name] = there
}

// commit makes the pending changes in dir durable, and those that they stand on:
// earlier ones of the same inodes, and the making of the directories above. POSIX does
// not promise the latter; the journalling file systems of Linux do it.
func (v *volume) commit(dir *inode) {
	with := map[*inode]bool{dir: true}
	var left []change
	for _, c := range slices.Backward(v.pending) {
		if !slices.ContainsFunc(c, func(e edit) bool { return e.dir == dir || with[e.before] || with[e.after] }) {
			left = append(left, c)
			continue
		}
		for _, e := range c {
			for _, n := range []*inode{e.before, e.after} {
				if n != nil {
					with[n] = true
				}
			}
			with[e.dir] = true
		}
	}
	slices.Reverse(left)
	v.pending = left
}

func (v *volume) mkdirAll(path string, mode fs.FileMode, refuse func() error) error {
	at := "/"
	for name := range strings.SplitSeq(path, "/") {
		dir, err := v.lookup(at)
		if err != nil {
			return err
		}
		if !dir.mode.IsDir() {
			return syscall.ENOTDIR
		}
		at = filepath.Join(at, name)
		if name == "" || dir.entries[name] != nil {
			continue
		}
		if err := refuse(); err != nil {
			return err
		}
		v.apply(edit{dir, name, nil, v.newInode(fs.ModeDir | mode.Perm())})
	}
	if n, err := v.lookup(at); err != nil || !n.mode.IsDir() {
		return syscall.ENOTDIR
	}
	return nil
}

func (v *volume) rename(from, to string) error {
	a, moved, old, err := v.place(from)
	if err != nil {
		return err
	}
	b, there, name, err := v.place(to)
	switch {
	case err != nil:
		return err
	case moved == nil:
		return syscall.ENOENT
	case moved == there:
		return nil
	case there != nil && there.mode.IsDir() && !moved.mode.IsDir():
		return syscall.EEXIST // package os says so
	case there != nil && !there.mode.IsDir() && moved.mode.IsDir():
		return syscall.ENOTDIR
	case there != nil && len(there.entries) > 0:
		return syscall.ENOTEMPTY
	}
	v.apply(edit{a, old, moved, nil}, edit{b, name, there, moved})
	moved.ctime = v.now()
	return nil
}

func (v *volume) remove(path string) error {
	dir, there, name, err := v.place(path)
	switch {
	case err != nil:
		return err
	case there == nil:
		return syscall.ENOENT
	case len(there.entries) > 0:
		return syscall.ENOTEMPTY
	}
	v.apply(edit{dir, name, there, nil})
	return nil
}

func (v *volume) setMode(path string, mode fs.FileMode) error {
	n, err := v.lookup(path)
	if err != nil {
		return err
	}
	n.mode, n.ctime = n.mode.Type()|mode.Perm(), v.now()
	return nil
}

// every is each inode that has a name, or can have one again after a crash.
func (v *volume) every() iter.Seq[*inode] {
	return func(yield func(*inode) bool) {
		seen := map[*inode]bool{}
		todo := []*inode{v.root}
		for _, c := range v.pending {
			for _, e := range c {
				todo = append(todo, e.dir, e.before, e.after)
			}
		}
		for len(todo) > 0 {
			n := todo[0]
			todo = todo[1:]
			if n == nil || seen[n] {
				continue
			}
			seen[n] = true
			if !yield(n) {
				return
			}
			for _, name := range n.names() {
				todo = append(todo, n.entries[name])
			}
		}
	}
}

// crash is a power loss. Draw returns a number below its argument, which is over 0.
// It kills every view. Of the names, a prefix of what is pending stays; a file that
// was not synced has its old content, the new one, none, or a part.
func (v *volume) crash(draw func(n int) int) {
	v.mu.Lock()
	views := slices.Clone(v.views)
	v.mu.Unlock()
	for _, w := range views {
		w.kill()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	keep := draw(len(v.pending) + 1)
	for _, c := range slices.Backward(v.pending[keep:]) {
		for _, e := range slices.Backward(c) {
			e.dir.put(e.name, e.before)
		}
	}
	v.pending = nil
	// By number: names have random ids in them.
	for _, n := range slices.SortedFunc(v.every(), func(a, b *inode) int { return cmp.Compare(a.ino, b.ino) }) {
		if n.dirty {
			n.settle(draw)
		}
	}
}

func (n *inode) settle(draw func(n int) int) {
	switch draw(4) {
	case 0:
		n.data = n.durable
	case 1: // the whole new one
	case 2:
		n.data = nil
	case 3:
		n.data = n.data[:draw(len(n.data)+1)]
	}
	n.durable, n.dirty = n.data, false
}
