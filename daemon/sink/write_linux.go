package sink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func idOf(st *syscall.Stat_t) ID {
	return ID{Inode: st.Ino, ModTime: st.Mtim.Nano()}
}

// write puts data at path as a whole, in a file of the given mode whatever the
// umask. The directory must be there, ours or root's, closed to other writers,
// and none of the directories in forbidden; nothing on the way may be a symbolic
// link; at path there must be nothing, or the file of an earlier write, one of
// ours. When write returns the content is on the disk. Before the file takes its
// place, announce is called with the ID that it will have, so that a crash leaves
// none that nobody knows.
func write(path string, mode fs.FileMode, data []byte, ours []ID, announce func(ID), forbidden []string) (ID, error) {
	d, err := openDir(filepath.Dir(path))
	if err != nil {
		return ID{}, err
	}
	defer d.close()
	there, err := d.takes(filepath.Base(path), ours, forbidden)
	if err != nil {
		return ID{}, err
	}
	return d.replace(filepath.Base(path), mode, data, there, announce)
}

// check says why write would refuse path. A directory that is not there yet may
// be there by then.
func check(path string, ours []ID) error {
	d, err := openDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.close()
	_, err = d.takes(filepath.Base(path), ours, nil)
	return err
}

// remove removes the file at path if it is one of ours, and reports whether it
// did. It fails if the directory is not there, or is on another file system now:
// the disk, and the file on it, may come back.
func remove(path string, ours []ID) (bool, error) {
	lasting := slices.ContainsFunc(ours, func(id ID) bool { return id.Device != 0 })
	d, err := openDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		if lasting {
			return false, ErrNoDirectory
		}
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer d.close()
	name := filepath.Base(path)
	if err := d.unlink(tempName(name)); err != nil { // what a crash may have left
		return false, err
	}
	st, err := d.look(name)
	if errors.Is(err, fs.ErrNotExist) {
		if lasting && !slices.ContainsFunc(ours, func(id ID) bool { return id.Device == d.device() }) {
			return false, ErrNotMounted
		}
		return false, nil
	}
	if err == nil {
		err = whose(st, ours)
	}
	if errors.Is(err, ErrForeign) {
		return false, nil
	}
	if err == nil {
		err = d.unlink(name)
	}
	if err != nil {
		return false, named(path, err)
	}
	return true, d.sync()
}

// named is err with the path that it is about, if it has none.
func named(path string, err error) error {
	if errors.Is(err, ErrForeign) || errors.Is(err, ErrChanged) {
		return fmt.Errorf("%s %w", path, err)
	}
	return err
}

// whose is nil if the file is one of ours as we wrote it.
func whose(st *syscall.Stat_t, ours []ID) error {
	err := ErrForeign
	for _, id := range ours {
		switch {
		case st.Mode&syscall.S_IFMT != syscall.S_IFREG:
		case idOf(st).same(id):
			return nil
		case st.Ino == id.Inode:
			err = ErrChanged
		}
	}
	return err
}

// holds reports whether the file at path is still the one that write called id.
func holds(path string, id ID) bool {
	d, err := openDir(filepath.Dir(path))
	if err != nil {
		return false
	}
	defer d.close()
	st, err := d.look(filepath.Base(path))
	return err == nil && idOf(st).same(id)
}

// device is the number of the file system that d is on; 0 if files on that do not
// outlive it.
func (d *dir) device() uint64 {
	var st syscall.Stat_t
	var fsys unix.Statfs_t
	if syscall.Fstat(d.fd, &st) != nil || unix.Fstatfs(d.fd, &fsys) != nil {
		return 0
	}
	if t := int64(fsys.Type); t == unix.TMPFS_MAGIC || t == unix.RAMFS_MAGIC {
		return 0
	}
	return st.Dev
}

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

// guarded refuses a directory in which somebody else could put a file in the
// place of ours.
func (d *dir) guarded(forbidden []string) error {
	var st syscall.Stat_t
	if err := syscall.Fstat(d.fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: d.path, Err: err}
	}
	switch {
	case int(st.Uid) != os.Getuid() && st.Uid != 0:
		return fmt.Errorf("%s belongs to another user", d.path)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s can be written by others", d.path)
	}
	for _, own := range forbidden {
		var other syscall.Stat_t
		if syscall.Stat(own, &other) == nil && other.Dev == st.Dev && other.Ino == st.Ino {
			return fmt.Errorf("%s is a directory of bloq-agent itself", d.path)
		}
	}
	return nil
}

// takes says why no token may be put in d under name, and reports whether there is
// a file of ours.
func (d *dir) takes(name string, ours []ID, forbidden []string) (there bool, err error) {
	if err := d.guarded(forbidden); err != nil {
		return false, err
	}
	st, err := d.look(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	path := filepath.Join(d.path, name)
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return true, named(path, whose(st, ours))
	case syscall.S_IFLNK:
		return true, fmt.Errorf("%s is a symbolic link; name what it points to", path)
	}
	return true, fmt.Errorf("%s is there and is not a regular file", path)
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

// tempName is always the same for a file, so that a crash leaves one at most.
// Nobody else writes in the directory.
func tempName(name string) string { return ".bloq-" + name + ".tmp" }

// replace writes data beside name and renames it to that; over it only if it was
// there.
func (d *dir) replace(name string, mode fs.FileMode, data []byte, there bool, announce func(ID)) (ID, error) {
	temp := tempName(name)
	_ = d.unlink(temp) // if it is still there the next step says so
	fd, err := openat(d.fd, temp, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL|syscall.O_NOFOLLOW)
	if err != nil {
		return ID{}, &fs.PathError{Op: "create", Path: filepath.Join(d.path, temp), Err: err}
	}
	f := os.NewFile(uintptr(fd), filepath.Join(d.path, temp))
	id, err := fill(f, mode, data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		id.Device = d.device()
		announce(id)
		err = d.rename(temp, name, there)
	}
	if err != nil {
		if left := d.unlink(temp); left != nil {
			err = fmt.Errorf("%w; %w: %w", err, errPart, left)
		}
		return ID{}, err
	}
	return id, d.sync()
}

// rename gives temp its name. If nothing was there a moment ago, nothing may be
// there now; not every file system (NFS) can promise that.
func (d *dir) rename(temp, name string, there bool) error {
	err := error(unix.EINVAL)
	if !there {
		err = unix.Renameat2(d.fd, temp, d.fd, name, unix.RENAME_NOREPLACE)
	}
	if err == unix.EINVAL || err == unix.ENOSYS {
		err = syscall.Renameat(d.fd, temp, d.fd, name)
	}
	path := filepath.Join(d.path, name)
	switch err {
	case nil:
		return nil
	case unix.EEXIST:
		return named(path, ErrForeign)
	}
	return &fs.PathError{Op: "rename", Path: path, Err: err}
}

func fill(f *os.File, mode fs.FileMode, data []byte) (ID, error) {
	if err := f.Chmod(mode); err != nil {
		return ID{}, err
	}
	if _, err := f.Write(data); err != nil {
		return ID{}, err
	}
	if err := f.Sync(); err != nil {
		return ID{}, err
	}
	fi, err := f.Stat()
	if err != nil {
		return ID{}, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return ID{}, errors.New("no inode")
	}
	return idOf(st), nil
}

// unlink removes name if it is there. A disk that is read-only says so of what is
// not there too.
func (d *dir) unlink(name string) error {
	if _, err := d.look(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := syscall.Unlinkat(d.fd, name); err != nil && err != syscall.ENOENT {
		return &fs.PathError{Op: "remove", Path: filepath.Join(d.path, name), Err: err}
	}
	return nil
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
