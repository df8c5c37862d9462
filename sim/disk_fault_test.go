//go:build linux

package sim

import (
	"syscall"
	"time"
)

// faults are what the world has set.
type faults struct {
	full, readOnly bool
	failing        float64       // how many of the writing operations fail with EIO
	gate           chan struct{} // closed when the disk stops hanging; nil while it works
	onlySync       bool          // what hangs
}

// refuse is the fault that a writing operation meets. The volume's lock is held.
func (w *view) refuse(op, path string, grows bool) error {
	f := &w.vol.faults
	share := fraction("fails", w.vol.seed, w.nth, op, aTemp.ReplaceAllString(path, "temp"), time.Now().UnixNano())
	switch {
	case f.readOnly && op != "sync":
		return syscall.EROFS
	case f.full && grows:
		return syscall.ENOSPC
	case share < f.failing:
		return syscall.EIO
	}
	return nil
}

func (v *volume) setFull(full bool)         { v.fault(func(f *faults) { f.full = full }) }
func (v *volume) setReadOnly(readOnly bool) { v.fault(func(f *faults) { f.readOnly = readOnly }) }
func (v *volume) setFailing(share float64)  { v.fault(func(f *faults) { f.failing = share }) }

// hang blocks each operation that comes, or only each sync, until release. It must
// be called in the bubble.
func (v *volume) hang(onlySync bool) {
	v.release()
	v.fault(func(f *faults) { f.gate, f.onlySync = make(chan struct{}), onlySync })
}

func (v *volume) release() {
	v.fault(func(f *faults) {
		if f.gate != nil {
			close(f.gate)
			f.gate = nil
		}
	})
}

func (v *volume) fault(set func(*faults)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	set(&v.faults)
}

func (v *volume) gateFor(op string) chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.faults.onlySync && op != "sync" {
		return nil
	}
	return v.faults.gate
}
