package store

import "testing"

func FuzzLockedBy(f *testing.F) {
	const lines = "1: POSIX  ADVISORY  READ 12 fe:00:131075 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 13 fe:00:131075 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 fe:00:131075 0 EOF\n"
	if pid := lockedBy(lines, "fe:00:131075"); pid != 4711 {
		f.Errorf("it is locked by %d", pid)
	}
	if pid := lockedBy(lines, "fe:00:13107"); pid != 0 {
		f.Errorf("another file is locked by %d", pid)
	}
	f.Add(lines, "fe:00:131075")
	f.Fuzz(func(_ *testing.T, locks, file string) { lockedBy(locks, file) })
}
