//go:build !linux

package store

import (
	"context"
	"errors"

	keyring "github.com/zalando/go-keyring"
)

// desktop reaches items in the keychain.
type desktop struct{}

// slot holds one value while a call runs. go-keyring cannot be cancelled: a call
// that waits for a person is left to itself, and the next ones wait behind it.
var slot = make(chan struct{}, 1)

// within runs f, and stops waiting for it when ctx ends.
func within(ctx context.Context, f func() (string, error)) ([]byte, error) {
	select {
	case slot <- struct{}{}:
	case <-ctx.Done():
		return nil, unavailable(reasonFrozen, nil)
	}
	type result struct {
		secret string
		err    error
	}
	done := make(chan result, 1)
	go func() { // ends when the keychain answers
		secret, err := f()
		done <- result{secret, err}
		<-slot
	}()
	select {
	case r := <-done:
		switch {
		case errors.Is(r.err, keyring.ErrNotFound):
			return nil, ErrNotFound
		case r.err != nil:
			return nil, unavailable(reasonRefused, r.err)
		}
		return []byte(r.secret), nil
	case <-ctx.Done():
		return nil, unavailable(reasonFrozen, nil)
	}
}

func (*desktop) Load(ctx context.Context, id string) ([]byte, error) {
	return within(ctx, func() (string, error) { return keyring.Get(keyringService, id) })
}

func (*desktop) Save(ctx context.Context, id string, b []byte) error {
	secret := string(b) // a copy: the call may outlive us
	_, err := within(ctx, func() (string, error) { return "", keyring.Set(keyringService, id, secret) })
	return err
}

func (*desktop) Delete(ctx context.Context, id string) error {
	_, err := within(ctx, func() (string, error) { return "", keyring.Delete(keyringService, id) })
	return err
}

// Watch has nothing to tell: the keychain tells nobody.
func (*desktop) Watch(context.Context) <-chan struct{} { return nil }

// A keychain that asks its person waits for the answer in within.
func (*desktop) AskAgain() {}
func (*desktop) Close()    {}
