package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"bloq-agent/store/trusted"
)

// A Disk is all that this package asks of a file system: it opens no file and
// changes no name but by this. There is one, the system's; tests put another in
// its place, which tells what was asked of it, or fails. Its methods are those of
// package os, and are called as they come: none of them does more than one thing.
type Disk interface {
	OpenFile(path string, flag int, mode fs.FileMode) (DiskFile, error)
	// Read reads a file that no other user can have written, ReadOwn one that is
	// closed to them too; see package trusted.
	Read(path string) ([]byte, error)
	ReadOwn(path string) ([]byte, error)
	// CheckOwn returns why what is at path cannot be taken for ours.
	CheckOwn(path string, want fs.FileMode) error
	CreateTemp(dir, pattern string) (DiskFile, error)
	MkdirAll(path string, mode fs.FileMode) error
	Rename(from, to string) error
	Remove(path string) error
	Chmod(path string, mode fs.FileMode) error
	Lstat(path string) (fs.FileInfo, error)
	Stat(path string) (fs.FileInfo, error)
	Glob(pattern string) ([]string, error)
	// Lock holds a directory until what it returns is closed. Where another holds
	// it the error is ErrInUse.
	Lock(dir string) (DiskFile, error)
}

// A DiskFile is an open file or directory. *os.File is one.
type DiskFile interface {
	io.ReadWriteCloser
	Name() string
	Stat() (fs.FileInfo, error)
	Sync() error
}

var disk Disk = bounded{system{}}

type system struct{}

func (system) OpenFile(path string, flag int, mode fs.FileMode) (DiskFile, error) {
	return os.OpenFile(path, flag, mode)
}

func (system) Read(path string) ([]byte, error)    { return trusted.ReadFile(path) }
func (system) ReadOwn(path string) ([]byte, error) { return trusted.ReadOwn(path) }
func (system) CheckOwn(path string, want fs.FileMode) error {
	return trusted.CheckOwn(path, want)
}

func (system) CreateTemp(dir, pattern string) (DiskFile, error) { return os.CreateTemp(dir, pattern) }
func (system) MkdirAll(path string, mode fs.FileMode) error     { return os.MkdirAll(path, mode) }
func (system) Rename(from, to string) error                     { return os.Rename(from, to) }
func (system) Remove(path string) error                         { return os.Remove(path) }
func (system) Chmod(path string, mode fs.FileMode) error        { return os.Chmod(path, mode) }
func (system) Lstat(path string) (fs.FileInfo, error)           { return os.Lstat(path) }
func (system) Stat(path string) (fs.FileInfo, error)            { return os.Stat(path) }
func (system) Glob(pattern string) ([]string, error)            { return filepath.Glob(pattern) }

// Lock holds the directory itself, so that there is no lock file to remove.
func (system) Lock(dir string) (DiskFile, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return f, nil
}

// ReplaceDisk is for tests alone, before and after anything else of this package is
// used. It returns the disk that d replaces.
func ReplaceDisk(d Disk) (before Disk) {
	before, disk = disk.(bounded).disk, bounded{d}
	return before
}
