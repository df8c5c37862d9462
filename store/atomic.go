package store

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"bloq-agent/store/failpoint"
)

// tempPattern is CreateTemp's, for files that a rename is to put in place.
const tempPattern = ".bloq-*.tmp"

// WriteFile replaces the file at path as a whole: after a crash at any moment
// there is either the old content or the new. It is on the disk when this
// returns (temporary file, fsync, rename, fsync of the directory). The file's
// mode is 0600.
func WriteFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := disk.CreateTemp(dir, tempPattern) // O_EXCL, 0600
	if err != nil {
		return err
	}
	err = inOrder([]step{
		{"write", func() error { _, err := f.Write(data); return err }},
		{"sync", f.Sync},
		{"close", f.Close},
		{"rename", func() error { return disk.Rename(f.Name(), path) }},
		{"directory sync", func() error { return syncDir(dir) }},
	})
	if err != nil {
		_ = f.Close()             // it may be already
		_ = disk.Remove(f.Name()) // after the rename there is no such file
	}
	return err
}

// A step of a durable write; a crash can follow it.
type step struct {
	name string
	do   func() error
}

func inOrder(steps []step) error {
	for _, s := range steps {
		if err := s.do(); err != nil {
			return err
		}
		failpoint.Hit("file " + s.name)
	}
	return nil
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := disk.OpenFile(dir, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	// Some file systems cannot sync a directory and say EINVAL; they have no
	// other way to offer.
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// removeTemps clears what a crash left in dir.
func removeTemps(dir string) {
	list, err := disk.Glob(filepath.Join(dir, tempPattern))
	if err != nil {
		return
	}
	for _, path := range list {
		_ = disk.Remove(path) // if it cannot be removed it is only litter
	}
}
