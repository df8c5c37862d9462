package trusted

import "testing"

// OnlyMember is the rule of groups.
var OnlyMember = onlyMember

// UseEtc has the test's own passwd and group asked.
func UseEtc(t *testing.T, dir string) {
	old := etc
	etc = dir
	t.Cleanup(func() { etc = old })
}
