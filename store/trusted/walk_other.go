//go:build !linux

package trusted

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// open is a simpler form for systems without O_PATH: it looks at paths, and at
// the file once it is open.
func open(path string) (*os.File, error) {
	real, err := checkWay(path)
	if err != nil {
		return nil, err
	}
	// Without O_NONBLOCK a FIFO would hold us until somebody writes.
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		if fi, lookErr := os.Lstat(real); lookErr == nil && errors.Is(err, fs.ErrPermission) {
			return nil, nodeOf(real, fi).denied(path)
		}
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil {
		if e := nodeOf(real, fi).readable(path); e != nil {
			err = e
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func checkParents(path string) error {
	_, err := checkWay(path)
	return err
}

// checkWay checks the directories of path as it is written, and those of the
// file that it leads to. It does not check those of links between.
func checkWay(path string) (real string, err error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, err = filepath.EvalSymlinks(absolute); err != nil {
		return "", err
	}
	for _, p := range []string{absolute, real} {
		for dir := filepath.Dir(p); p != dir; p, dir = dir, filepath.Dir(dir) {
			if err := checkEntry(path, p, dir); err != nil {
				return "", err
			}
		}
	}
	return real, nil
}

func nodeAt(path string) (node, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return node{}, err
	}
	return nodeOf(path, fi), nil
}

func checkEntry(file, path, dir string) error {
	entry, err := os.Lstat(path)
	if err != nil {
		return err
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	readOnly := func() bool { return false }
	if e := nodeOf(dir, fi).enterable(file, nodeOf(path, entry), readOnly); e != nil {
		return e
	}
	return nil
}
