package sink

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A dir is an open directory. What is done in it is done in the one that was
// looked at, whatever its path means by then.
type dir struct {
	path string
	fd   int
}

// oPath is O_PATH, which package syscall lacks: to walk through a directory
// takes no right to read it. The value is the same on all of Linux's ports of Go.
const oPath = 0x200000

// openDir opens the directory at path, an absolute one, a component at a time,
// none of which may be a symbolic link. It is what openat2's
// RESOLVE_NO_SYMLINKS does, without asking for a kernel or a seccomp filter that
// lets that through, and it can say which component is at fault.
func openDir(path string) (*dir, error) {
	d := &dir{path: "/", fd: -1}
	fd, err := openat(-1, "/", oPath|syscall.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.path, Err: err}
	}
	d.fd = fd
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		if name == "" {
			continue // path is the root
		}
		if err := d.enter(name); err != nil {
			d.close()
			return nil, err
		}
	}
	return d, nil
}

// enter moves d into one of its directories.
func (d *dir) enter(name string) error {
	path := filepath.Join(d.path, name)
	fd, err := openat(d.fd, name, oPath|syscall.O_DIRECTORY|syscall.O_NOFOLLOW)
	if err == syscall.ENOTDIR || err == syscall.ELOOP {
		err = errors.New("is not a directory")
		if st, lookErr := d.look(name); lookErr == nil && st.Mode&syscall.S_IFMT == syscall.S_IFLNK {
			err = errors.New("is a symbolic link; name what it points to")
		}
		return fmt.Errorf("%s %w", path, err)
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	d.close()
	d.path, d.fd = path, fd
	return nil
}

func (d *dir) close() { _ = syscall.Close(d.fd) }

// home is what d is called in a record; nothing if that cannot be told.
func (d *dir) home() home {
	var st syscall.Stat_t
	var fsys unix.Statfs_t
	if syscall.Fstat(d.fd, &st) != nil || unix.Fstatfs(d.fd, &fsys) != nil {
		return home{}
	}
	if t := int64(fsys.Type); t == unix.TMPFS_MAGIC || t == unix.RAMFS_MAGIC {
		id := uint64(uint32(fsys.Fsid.Val[0]))<<32 | uint64(uint32(fsys.Fsid.Val[1]))
		return home{Memory: id, Dir: st.Ino}
	}
	return home{Device: st.Dev, Dir: st.Ino}
}

// lacks says why one of ours, which is not in d, may come back at its path.
func (d *dir) lacks(ours []ID) error {
	here := d.home()
	known := func(id ID) bool { return id.Device != 0 || id.Memory != 0 && id.Memory == here.Memory }
	mounted := func(id ID) bool { return id.Device == here.Device && id.Memory == here.Memory }
	in := func(id ID) bool { return mounted(id) && (id.Dir == 0 || id.Dir == here.Dir) }
	switch {
	case !slices.ContainsFunc(ours, known) || slices.ContainsFunc(ours, in):
		return nil
	case slices.ContainsFunc(ours, mounted):
		return ErrOtherDirectory
	}
	return ErrNotMounted
}

// look is lstat(2) of name.
func (d *dir) look(name string) (*syscall.Stat_t, error) {
	fd, err := openat(d.fd, name, oPath|syscall.O_NOFOLLOW)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: filepath.Join(d.path, name), Err: err}
	}
	defer func() { _ = syscall.Close(fd) }()
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: filepath.Join(d.path, name), Err: err}
	}
	return &st, nil
}

// sync makes a rename or a removal durable. Some file systems cannot do that
// for a directory and say EINVAL; and who may write in a directory may not
// always read it.
func (d *dir) sync() error {
	fd, err := openat(d.fd, ".", syscall.O_RDONLY|syscall.O_DIRECTORY)
	if err == syscall.EACCES {
		return nil
	}
	if err == nil {
		defer func() { _ = syscall.Close(fd) }()
		err = syscall.Fsync(fd)
	}
	if err != nil && err != syscall.EINVAL {
		return &fs.PathError{Op: "sync", Path: d.path, Err: err}
	}
	return nil
}

// openat is openat(2), again as long as a signal interrupts it. A file that it
// makes is 0600.
func openat(dirfd int, name string, flags int) (int, error) {
	for {
		fd, err := syscall.Openat(dirfd, name, flags|syscall.O_CLOEXEC, 0o600)
		if err != syscall.EINTR {
			return fd, err
		}
	}
}
