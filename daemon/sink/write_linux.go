package sink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"bloq-agent/userns"

	"golang.org/x/sys/unix"
)

func idOf(st *syscall.Stat_t) ID {
	return ID{Inode: st.Ino, ModTime: st.Mtim.Nano()}
}

// write puts data at path as a whole, in a file of the given mode whatever the
// umask. The directory must be there, ours or root's, closed to other writers,
// and none of the directories in forbidden; nothing on the way may be a symbolic
// link; at path there must be nothing, or the file of an earlier write, one of
// ours. When write returns the content is on the disk. Until then it is in temp, in
// the same directory, which is ours. Before the file takes its place, announce is
// called with the ID that it will have, so that a crash leaves none that nobody
// knows.
func write(path, temp string, mode fs.FileMode, data []byte, ours []ID, announce func(ID), forbidden []string) (ID, error) {
	d, err := openDir(filepath.Dir(path))
	if err != nil {
		return ID{}, err
	}
	defer d.close()
	there, err := d.takes(filepath.Base(path), ours, forbidden)
	if err != nil {
		return ID{}, err
	}
	return d.replace(filepath.Base(path), temp, mode, data, there, announce)
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

// remove removes the file at path if it is one of ours, and temp, and reports
// whether there was such a file. It fails if the directory is not there, or is
// another now: the disk, and the file on it, may come back.
func remove(path, temp string, ours []ID) (bool, error) {
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
	if temp != "" { // what a crash may have left
		if err := d.unlink(temp); err != nil {
			return false, err
		}
	}
	st, err := d.look(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, d.lacks(ours)
	}
	if err == nil {
		if kind := st.Mode & syscall.S_IFMT; kind != syscall.S_IFREG && kind != syscall.S_IFLNK {
			return false, nil // no token is in that
		}
		err = whose(st, ours)
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

// guarded refuses a directory in which somebody else could put a file in the
// place of ours.
func (d *dir) guarded(forbidden []string) error {
	var st syscall.Stat_t
	if err := syscall.Fstat(d.fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: d.path, Err: err}
	}
	switch {
	case int(st.Uid) != os.Getuid() && st.Uid != 0, userns.Unknown(st.Uid):
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

// replace writes data in temp and renames it to name; over it only if it was there.
func (d *dir) replace(name, temp string, mode fs.FileMode, data []byte, there bool, announce func(ID)) (ID, error) {
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
		id.home = d.home()
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
