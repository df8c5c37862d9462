//go:build !linux

package harden

import (
	"errors"
	"math"
	"os/exec"
)

// Process does nothing here.
func Process() error { return nil }

// Start is cmd.Start.
func Start(cmd *exec.Cmd) error { return cmd.Start() }

// Now is nothing.
func Now() State { return State{Dumpable: true, CoreLimit: math.MaxUint64} }

// Confine does nothing here.
func Confine([]string, ...string) (int, error) { return 0, errors.New("only Linux has Landlock") }
