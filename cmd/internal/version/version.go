// Package version says which Bloq agent a program is. It is a leaf, for
// bloq-token links it.
package version

import "cmp"

// Both are set by make. What Go builds without it has the release from here,
// which a test compares with the file VERSION.
var (
	number = "0.1.0"
	commit string
)

// String is what stands after a program's name: 0.1.0 (0123456789ab).
func String() string { return Or("") }

// Or is String with another commit for when make has not set one.
func Or(other string) string {
	return number + " (" + cmp.Or(commit, other, "unknown commit") + ")"
}
