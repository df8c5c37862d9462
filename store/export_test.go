package store

import (
	"context"
	"testing"
)

// FailDisk makes every write of the test fail with err at one step.
func FailDisk(t *testing.T, at string, err error) {
	old := diskError
	diskError = func(step string) error {
		if step == at {
			return err
		}
		return nil
	}
	t.Cleanup(func() { diskError = old })
}

// WatchDisk returns the steps of every write of the test, as they come.
func WatchDisk(t *testing.T) *[]string {
	var steps []string
	old := diskError
	diskError = func(step string) error {
		steps = append(steps, step)
		return nil
	}
	t.Cleanup(func() { diskError = old })
	return &steps
}

// NewKeyringUnchecked is for go-keyring's mock, which has no bus to ask.
func NewKeyringUnchecked() *Keyring {
	k := NewKeyring()
	k.check = func(context.Context) error { return nil }
	return k
}
