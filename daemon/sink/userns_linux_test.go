package sink

import (
	"testing"

	"bloq-agent/userns/usernstest"
)

// The directory is our own, and could be anybody's.
func TestADirectoryThatCouldBeAnybodysIsRefused(t *testing.T) {
	if !usernstest.Inside(t) {
		return
	}
	d, err := openDir(t.TempDir())
	must(t, err)
	defer d.close()
	if err := d.guarded(nil); err == nil || err.Error() != d.path+" belongs to another user" {
		t.Errorf("%v", err)
	}
}
