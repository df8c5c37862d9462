package store

import "testing"

// UseRunUser has the test's own directory stand for /run/user.
func UseRunUser(t *testing.T, dir string) {
	old := runUser
	runUser = dir
	t.Cleanup(func() { runUser = old })
}
