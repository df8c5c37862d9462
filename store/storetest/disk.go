package storetest

import (
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"bloq-agent/store"
)

// A HeldDisk is the system's, until it is made to stand still.
type HeldDisk struct {
	store.Disk

	mu    sync.Mutex
	stops func(call string) bool // which call is the first to be held; nil for none
	held  chan struct{}          // closed when that has come
	ended chan struct{}          // closed by Release
	calls int                    // that are held
}

// HoldDisk puts a HeldDisk under package store until the test ends. Nothing uses the
// package yet, and nothing that the test has started does when its cleanup is over.
func HoldDisk(t testing.TB) *HeldDisk {
	d := &HeldDisk{}
	d.Disk = store.ReplaceDisk(d)
	t.Cleanup(func() { store.ReplaceDisk(d.Disk) })
	return d
}

// Hold makes the disk stand still from the first call on that stops wants, which is
// like "rename FILE": that call, and whichever comes after it, lasts until release.
// What Hold returns is closed when the call has come.
func (d *HeldDisk) Hold(stops func(call string) bool) (held <-chan struct{}, release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stops, d.held, d.ended = stops, make(chan struct{}), make(chan struct{})
	ended := d.ended
	return d.held, sync.OnceFunc(func() {
		d.mu.Lock()
		d.stops = nil
		d.mu.Unlock()
		close(ended)
	})
}

// Calls is how many calls are held now.
func (d *HeldDisk) Calls() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

func (d *HeldDisk) wait(do, path string) {
	d.mu.Lock()
	if d.stops == nil || !d.stops(do+" "+path) {
		d.mu.Unlock()
		return
	}
	select {
	case <-d.held:
	default:
		close(d.held)
		d.stops = func(string) bool { return true }
	}
	ended := d.ended
	d.calls++
	d.mu.Unlock()
	<-ended
	d.mu.Lock()
	d.calls--
	d.mu.Unlock()
}

// AnyCall and ASave are for Hold.
func AnyCall(string) bool { return true }

// ASave is when the item of a login is written, and is to take its place.
func ASave(call string) bool {
	return strings.HasPrefix(call, "rename ") && filepath.Ext(call) == ".age"
}

// OpenFile and the methods that follow are those of a store.Disk.
func (d *HeldDisk) OpenFile(path string, flag int, mode fs.FileMode) (store.DiskFile, error) {
	d.wait("open", path)
	f, err := d.Disk.OpenFile(path, flag, mode)
	return d.file(f, err)
}

func (d *HeldDisk) CreateTemp(dir, pattern string) (store.DiskFile, error) {
	d.wait("create", dir)
	f, err := d.Disk.CreateTemp(dir, pattern)
	return d.file(f, err)
}

func (d *HeldDisk) Lock(dir string) (store.DiskFile, error) {
	d.wait("lock", dir)
	f, err := d.Disk.Lock(dir)
	return d.file(f, err)
}

func (d *HeldDisk) file(f store.DiskFile, err error) (store.DiskFile, error) {
	if err != nil {
		return nil, err
	}
	return heldFile{f, d}, nil
}

func (d *HeldDisk) Read(path string) ([]byte, error) {
	d.wait("read", path)
	return d.Disk.Read(path)
}

func (d *HeldDisk) ReadOwn(path string) ([]byte, error) {
	d.wait("read", path)
	return d.Disk.ReadOwn(path)
}

func (d *HeldDisk) CheckOwn(path string, want fs.FileMode) error {
	d.wait("check", path)
	return d.Disk.CheckOwn(path, want)
}

func (d *HeldDisk) MkdirAll(path string, mode fs.FileMode) error {
	d.wait("mkdir", path)
	return d.Disk.MkdirAll(path, mode)
}

func (d *HeldDisk) Rename(from, to string) error {
	d.wait("rename", to)
	return d.Disk.Rename(from, to)
}

func (d *HeldDisk) Remove(path string) error {
	d.wait("remove", path)
	return d.Disk.Remove(path)
}

func (d *HeldDisk) Chmod(path string, mode fs.FileMode) error {
	d.wait("chmod", path)
	return d.Disk.Chmod(path, mode)
}

func (d *HeldDisk) Lstat(path string) (fs.FileInfo, error) {
	d.wait("lstat", path)
	return d.Disk.Lstat(path)
}

func (d *HeldDisk) Stat(path string) (fs.FileInfo, error) {
	d.wait("stat", path)
	return d.Disk.Stat(path)
}

func (d *HeldDisk) Glob(pattern string) ([]string, error) {
	d.wait("glob", pattern)
	return d.Disk.Glob(pattern)
}

type heldFile struct {
	store.DiskFile
	disk *HeldDisk
}

func (f heldFile) Write(p []byte) (int, error) {
	f.disk.wait("write", f.Name())
	return f.DiskFile.Write(p)
}

func (f heldFile) Stat() (fs.FileInfo, error) {
	f.disk.wait("stat", f.Name())
	return f.DiskFile.Stat()
}

func (f heldFile) Sync() error {
	f.disk.wait("sync", f.Name())
	return f.DiskFile.Sync()
}
