package store

import "testing"

// UseRunUser has the test's own directory stand for /run/user.
func UseRunUser(t *testing.T, dir string) {
	old := runUser
	runUser = dir
	t.Cleanup(func() { runUser = old })
}

// ProgramName is what people are told of a program that the kernel calls comm.
func ProgramName(comm string) string { return programName(comm) }
