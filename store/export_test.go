package store

import "context"

// NewKeyringUnchecked is for go-keyring's mock, which has no bus to ask.
func NewKeyringUnchecked() *Keyring {
	k := NewKeyring()
	k.check = func(context.Context) error { return nil }
	return k
}
