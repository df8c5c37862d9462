package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"bloq-agent/store/trusted"

	"golang.org/x/sys/unix"
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
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = inUse(f)
		}
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return f, nil
}

// inUse is ErrInUse, with the process that has locked f if the kernel tells. Where a
// file system shows other device numbers than it has (btrfs), it does not.
func inUse(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return ErrInUse
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	locks, err := os.ReadFile("/proc/locks")
	if !ok || err != nil {
		return ErrInUse
	}
	dev := uint64(st.Dev)
	pid := lockedBy(string(locks), fmt.Sprintf("%02x:%02x:%d", unix.Major(dev), unix.Minor(dev), st.Ino))
	if pid <= 0 {
		return ErrInUse
	}
	return &InUseError{pid}
}

// lockedBy returns which process has locked file, by the lines of /proc/locks, or 0.
func lockedBy(locks, file string) int {
	for line := range strings.Lines(locks) {
		// 1: FLOCK  ADVISORY  WRITE 4711 fe:00:131075 0 EOF
		if f := strings.Fields(line); len(f) > 5 && f[1] == "FLOCK" && f[5] == file {
			pid, _ := strconv.Atoi(f[4])
			return pid
		}
	}
	return 0
}

// ReplaceDisk is for tests alone, before and after anything else of this package is
// used. It returns the disk that d replaces.
func ReplaceDisk(d Disk) (before Disk) {
	before, disk = disk.(bounded).disk, bounded{d}
	return before
}
