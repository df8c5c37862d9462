package daemon

import (
	"errors"
	"testing"
)

func TestADirectoryOutsideNeedsARestart(t *testing.T) {
	d := &Daemon{}
	if d.needsRestart("/anywhere") {
		t.Error("before the start")
	}
	d.confined.Store(&confinement{reason: errors.New("no kernel for it")})
	if d.needsRestart("/anywhere") {
		t.Error("nothing is confined")
	}
	d.confined.Store(&confinement{abi: 5, dirs: []string{"/run/a", "/home/u/state"}})
	for path, want := range map[string]bool{
		"/run/a": false, "/run/a/b/c": false, "/home/u/state/x": false, "/run/a/..b": false,
		"/run": true, "/run/ab": true, "/run/a/../b": true, "/home/u": true, "/": true,
	} {
		if got := d.needsRestart(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}
