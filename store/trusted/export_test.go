package trusted

import "testing"

// UseEtc has the test's own passwd and group asked.
func UseEtc(t *testing.T, dir string) {
	old := etc
	etc = dir
	t.Cleanup(func() { etc = old })
}
