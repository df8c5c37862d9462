//go:build !failpoints

// Package failpoint kills the process at a named step, in tests of what a crash
// leaves behind. It is built in with the tag failpoints only; what ships calls
// an empty function.
package failpoint

// Hit does nothing here.
func Hit(string) {}
