package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// maxFile bounds what is read of a file of ours: an item is a few KiB.
const maxFile = 1 << 20

// A ModeError says that a file of ours is open to others.
type ModeError struct {
	Path string
	Mode fs.FileMode
}

func (e *ModeError) Error() string {
	return fmt.Sprintf("%s is open to others, mode %04o (chmod 600 mends it)", e.Path, e.Mode)
}

// readOwn reads a file that must be regular, ours, and closed to everybody
// else. What is looked at is what is read: the checks are on the open file.
func readOwn(path string) ([]byte, error) {
	// Without O_NONBLOCK a FIFO would hold us until somebody writes.
	f, err := disk.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link", path)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	switch {
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case !ok || int(st.Uid) != os.Getuid():
		return nil, fmt.Errorf("%s belongs to another user", path)
	case fi.Mode().Perm()&0o077 != 0:
		return nil, &ModeError{path, fi.Mode().Perm()}
	}
	return readAtMost(f, path)
}

// ReadRegular reads a file that others have put in its place: of whatever owner
// and mode, but a regular one, so that a FIFO or a device holds nobody up. A
// symbolic link is followed to one.
func ReadRegular(path string) ([]byte, error) {
	f, err := disk.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return readAtMost(f, path)
}

func readAtMost(f io.Reader, path string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s is longer than 1 MiB", path)
	}
	return b, nil
}
