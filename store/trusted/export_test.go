package trusted

import "testing"

// OnlyMember is the rule of groups.
var OnlyMember = onlyMember

// OwnGroup is the rule of ours.
var OwnGroup = ownGroup

// UseEtc has the test's own passwd and group asked.
func UseEtc(t *testing.T, dir string) {
	old := etc
	etc = dir
	t.Cleanup(func() { etc = old })
}
