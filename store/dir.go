package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
)

// A Dir is the state directory, or a link to it. One process holds it at a time.
type Dir struct {
	name string
	note string   // what was mended when it was opened; "" if nothing
	held DiskFile // the directory itself, so that there is no lock file to remove
	look Glance
}

// A MovedError says that the state directory which is open is not the one at its
// path any more. Nothing must be written then: it would be lost, or overwrite
// what is there now.
type MovedError struct {
	Path string
	Err  error // why there is none; nil if there is another one
}

func (e *MovedError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("the state directory %s is gone since the daemon started: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("the state directory %s was replaced since the daemon started, or a file system was mounted over it", e.Path)
}

// Unwrap is what the system said.
func (e *MovedError) Unwrap() error { return e.Err }

// openDir makes the directory if need be, checks that only we can write it, and
// holds it. If another process does, the error is ErrInUse.
func openDir(name string) (*Dir, error) {
	if err := disk.MkdirAll(name, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = fmt.Errorf("%s is a link to a directory that is not there", name)
		}
		return nil, err
	}
	if err := disk.CheckOwn(name, fs.ModeDir); err != nil {
		return nil, err
	}
	note := closeToOthers(name, 0o022, 0o700)
	held, err := disk.Lock(name)
	if err != nil {
		return nil, err
	}
	removeTemps(name)
	return &Dir{name: name, note: note, held: held}, nil
}

func (d *Dir) close() error { return d.held.Close() }

func (d *Dir) path(name string) string { return filepath.Join(d.name, name) }

// Check returns a *MovedError if the directory at the path is another one than
// this, by device and inode.
func (d *Dir) Check() error {
	held, err := d.held.Stat()
	if err != nil {
		return err
	}
	there, err := disk.Stat(d.name)
	if err != nil {
		return &MovedError{d.name, err}
	}
	if !sameFile(held, there) {
		return &MovedError{d.name, nil}
	}
	return nil
}

// Glance is Check for an answer: it waits for no disk that hangs. The error is
// ErrNoAnswer then.
func (d *Dir) Glance() error { return d.look.Look(d.Check) }

func sameFile(a, b fs.FileInfo) bool {
	x, xok := a.Sys().(*syscall.Stat_t)
	y, yok := b.Sys().(*syscall.Stat_t)
	return xok && yok && x.Dev == y.Dev && x.Ino == y.Ino
}

// closeToOthers gives the path, which CheckOwn has passed, that mode if others have
// one of the rights. A disk that cannot be written is no reason to stop: what
// others may write is refused when it is read.
func closeToOthers(path string, rights, mode fs.FileMode) (note string) {
	fi, err := disk.Stat(path)
	if err != nil || fi.Mode().Perm()&rights == 0 {
		return ""
	}
	if err := disk.Chmod(path, mode); err != nil {
		return fmt.Sprintf("%s is open to others, mode %04o, and stays so: %v", path, fi.Mode().Perm(), err)
	}
	return fmt.Sprintf("%s was open to others, mode %04o; it is %04o now", path, fi.Mode().Perm(), mode)
}

// WriteFile is WriteFile for a file in the directory, after Check.
func (d *Dir) WriteFile(name string, data []byte) error {
	if err := d.Check(); err != nil {
		return err
	}
	return WriteFile(d.path(name), data)
}

// Remove removes a file in the directory, if it is there, after Check.
func (d *Dir) Remove(name string) error {
	if err := d.Check(); err != nil {
		return err
	}
	err := disk.Remove(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Has reports whether the directory has a file called name.
func (d *Dir) Has(name string) bool { return exists(d.path(name)) }

// ReadFile reads a file in the directory that only we can have written.
func (d *Dir) ReadFile(name string) ([]byte, error) { return disk.Read(d.path(name)) }
