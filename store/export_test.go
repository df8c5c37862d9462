package store

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FailDisk makes every call of the test fail with err that does one thing:
// "create", "write", "sync", "close", "rename", "remove", "directory sync".
func FailDisk(t *testing.T, at string, err error) {
	watch(t, func(call string) error {
		if do, _, _ := strings.Cut(call, ": "); do == at {
			return err
		}
		return nil
	})
}

// WatchDisk returns what was asked of the disk in the test, as it comes, like
// "rename: FILE". A temporary file's name is "temp".
func WatchDisk(t *testing.T) *[]string {
	var calls []string
	watch(t, func(call string) error {
		calls = append(calls, call)
		return nil
	})
	return &calls
}

func watch(t *testing.T, on func(call string) error) {
	old := disk
	disk = watched{old, on}
	t.Cleanup(func() { disk = old })
}

// watched is a disk that tells of each change, and does it if it may.
type watched struct {
	Disk
	on func(call string) error
}

func (w watched) OpenFile(path string, flag int, mode fs.FileMode) (DiskFile, error) {
	f, err := w.Disk.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	return watchedFile{f, w.on}, nil
}

func (w watched) CreateTemp(dir, pattern string) (DiskFile, error) {
	if err := w.on("create: temp"); err != nil {
		return nil, err
	}
	f, err := w.Disk.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	return watchedFile{f, w.on}, nil
}

func (w watched) Rename(from, to string) error {
	if err := w.on("rename: " + to); err != nil {
		return err
	}
	return w.Disk.Rename(from, to)
}

func (w watched) Remove(path string) error {
	if err := w.on("remove: " + shown(path)); err != nil {
		return err
	}
	return w.Disk.Remove(path)
}

type watchedFile struct {
	DiskFile
	on func(call string) error
}

func (f watchedFile) Write(b []byte) (int, error) {
	if err := f.on("write: " + shown(f.Name())); err != nil {
		return 0, err
	}
	return f.DiskFile.Write(b)
}

func (f watchedFile) Sync() error {
	do := "sync: "
	if fi, err := f.Stat(); err == nil && fi.IsDir() {
		do = "directory sync: "
	}
	if err := f.on(do + shown(f.Name())); err != nil {
		return err
	}
	return f.DiskFile.Sync()
}

// Close tells of what was written alone: nobody depends on the others.
func (f watchedFile) Close() error {
	if name := shown(f.Name()); name == "temp" {
		if err := f.on("close: " + name); err != nil {
			return err
		}
	}
	return f.DiskFile.Close()
}

func shown(path string) string {
	if is, _ := filepath.Match(tempPattern, filepath.Base(path)); is {
		return "temp"
	}
	return path
}

// TheSystemsFile is what the system's disk opens path as.
func TheSystemsFile(path string) (DiskFile, error) { return system{}.OpenFile(path, os.O_RDONLY, 0) }
