package store

import (
	"io/fs"

	"bloq-agent/store/turn"
)

// slots are for the calls of the disk that are under way. A call of a disk that hangs
// holds a thread, and a service has few of them (TasksMax=): without one, Go ends the
// process. Whoever gets no slot waits without a thread.
var slots = turn.NewSlots(16)

// inSlot is call, when there is a slot.
func inSlot[T any](call func() (T, error)) (T, error) {
	slots.Enter()
	defer slots.Leave()
	return call()
}

func doInSlot(call func() error) error {
	_, err := inSlot(func() (struct{}, error) { return struct{}{}, call() })
	return err
}

// bounded is a disk of which a bounded number of calls are under way.
type bounded struct{ disk Disk }

func opened(open func() (DiskFile, error)) (DiskFile, error) {
	f, err := inSlot(open)
	if err != nil {
		return nil, err
	}
	return boundedFile{f}, nil
}

func (b bounded) OpenFile(path string, flag int, mode fs.FileMode) (DiskFile, error) {
	return opened(func() (DiskFile, error) { return b.disk.OpenFile(path, flag, mode) })
}

func (b bounded) CreateTemp(dir, pattern string) (DiskFile, error) {
	return opened(func() (DiskFile, error) { return b.disk.CreateTemp(dir, pattern) })
}

func (b bounded) Lock(dir string) (DiskFile, error) {
	return opened(func() (DiskFile, error) { return b.disk.Lock(dir) })
}

func (b bounded) Read(path string) ([]byte, error) {
	return inSlot(func() ([]byte, error) { return b.disk.Read(path) })
}

func (b bounded) ReadOwn(path string) ([]byte, error) {
	return inSlot(func() ([]byte, error) { return b.disk.ReadOwn(path) })
}

func (b bounded) Lstat(path string) (fs.FileInfo, error) {
	return inSlot(func() (fs.FileInfo, error) { return b.disk.Lstat(path) })
}

func (b bounded) Stat(path string) (fs.FileInfo, error) {
	return inSlot(func() (fs.FileInfo, error) { return b.disk.Stat(path) })
}

func (b bounded) Glob(pattern string) ([]string, error) {
	return inSlot(func() ([]string, error) { return b.disk.Glob(pattern) })
}

func (b bounded) CheckOwn(path string, want fs.FileMode) error {
	return doInSlot(func() error { return b.disk.CheckOwn(path, want) })
}

func (b bounded) MkdirAll(path string, mode fs.FileMode) error {
	return doInSlot(func() error { return b.disk.MkdirAll(path, mode) })
}

func (b bounded) Rename(from, to string) error {
	return doInSlot(func() error { return b.disk.Rename(from, to) })
}

func (b bounded) Remove(path string) error {
	return doInSlot(func() error { return b.disk.Remove(path) })
}

func (b bounded) Chmod(path string, mode fs.FileMode) error {
	return doInSlot(func() error { return b.disk.Chmod(path, mode) })
}

type boundedFile struct{ DiskFile }

func (f boundedFile) Read(p []byte) (int, error) {
	return inSlot(func() (int, error) { return f.DiskFile.Read(p) })
}

func (f boundedFile) Write(p []byte) (int, error) {
	return inSlot(func() (int, error) { return f.DiskFile.Write(p) })
}

func (f boundedFile) Stat() (fs.FileInfo, error) { return inSlot(f.DiskFile.Stat) }
func (f boundedFile) Sync() error                { return doInSlot(f.DiskFile.Sync) }
func (f boundedFile) Close() error               { return doInSlot(f.DiskFile.Close) }
