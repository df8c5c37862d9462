package store

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	keyring "github.com/zalando/go-keyring"
)

const (
	keyringService = "bloq-agent"
	keyringTimeout = 5 * time.Second
)

// HintFile is the way out where there will never be a keyring. It names no
// profile: a Store knows none.
const HintFile = "bloq-agent login --store file"

// Reasons for which a keyring cannot be had. They are words of the status.
const (
	reasonNoBus     = "no D-Bus session"
	reasonNoService = "no Secret Service"
	reasonNone      = "no collection"
	reasonLocked    = "locked"
	reasonFrozen    = "frozen"
	reasonGone      = "gone"
	reasonRefused   = "refused"
)

// Keyring keeps items in the desktop's Secret Service (macOS: the keychain).
//
// go-keyring can neither be cancelled nor given a deadline, and it waits for
// ever on a frozen service or for a person at a prompt. So the bus is asked
// first whether the collection is unlocked; and each call runs in a goroutine
// of its own, one at a time. If it does not end in time we stop waiting, and
// until it ends by itself every other call fails at once instead of piling up
// behind it.
type Keyring struct {
	slot chan struct{} // holds one value while a call runs

	mu     sync.Mutex // guards the rest
	hung   bool       // a call runs that nobody waits for any more
	frozen time.Time  // when a call last took all its time in vain

	check func(context.Context) error // replaced where go-keyring is mocked; not guarded
}

// NewKeyring does not touch the keyring yet.
func NewKeyring() *Keyring { return &Keyring{slot: make(chan struct{}, 1), check: check} }

// Name is "keyring".
func (k *Keyring) Name() string { return "keyring" }

// Load reads an item.
func (k *Keyring) Load(ctx context.Context, id string) (Item, error) {
	secret, err := k.call(ctx, id, func() (string, error) { return keyring.Get(keyringService, id) })
	if err != nil {
		return Item{}, err
	}
	b := []byte(secret)
	defer clear(b)
	return decodeItem(b)
}

// Save writes an item; the service has it on its disk when this returns.
func (k *Keyring) Save(ctx context.Context, id string, item Item) error {
	b, err := encodeItem(item)
	if err != nil {
		return err
	}
	secret := string(b) // a copy: the call may outlive us
	clear(b)
	_, err = k.call(ctx, id, func() (string, error) { return "", keyring.Set(keyringService, id, secret) })
	return err
}

// Delete removes an item.
func (k *Keyring) Delete(ctx context.Context, id string) error {
	_, err := k.call(ctx, id, func() (string, error) { return "", keyring.Delete(keyringService, id) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

type keyringResult struct {
	secret string
	err    error
}

// call runs f when the keyring is known to be unlocked.
func (k *Keyring) call(ctx context.Context, id string, f func() (string, error)) (string, error) {
	if err := usable(ctx, id); err != nil {
		return "", err
	}
	callers := ctx
	ctx, cancel := context.WithTimeout(ctx, keyringTimeout)
	defer cancel()
	if k.isFrozen() {
		return "", unavailable(reasonFrozen, nil)
	}
	select {
	case k.slot <- struct{}{}:
	case <-ctx.Done():
		return "", unavailable(reasonFrozen, nil)
	}
	if k.isFrozen() { // by the call that we waited for
		<-k.slot
		return "", unavailable(reasonFrozen, nil)
	}
	done := make(chan keyringResult, 1)
	ended := false // guarded by k.mu
	go func() {    // ends when the Secret Service answers
		var r keyringResult
		if r.err = k.check(ctx); r.err == nil {
			r.secret, r.err = f()
			r.err = named(r.err)
		}
		done <- r
		k.mu.Lock()
		ended, k.hung = true, false
		k.mu.Unlock()
		<-k.slot
	}()
	select {
	case r := <-done:
		return r.secret, r.err
	case <-ctx.Done():
		// It may end at this very moment, and then there is nothing hung.
		k.mu.Lock()
		k.hung = !ended
		if callers.Err() == nil { // it was not just a caller in a hurry
			k.frozen = time.Now()
		}
		k.mu.Unlock()
		return "", unavailable(reasonFrozen, nil)
	}
}

// frozenFor is how long a time-out speaks for the calls that come after it. They
// were made while it ran, by people who would otherwise wait once more.
const frozenFor = time.Second

func (k *Keyring) isFrozen() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.hung || time.Since(k.frozen) < frozenFor
}

// unavailable explains a reason, and what to do about it.
func unavailable(reason string, err error) error {
	u := &Unavailable{Store: "keyring", Reason: reason, Err: err}
	switch reason {
	case reasonLocked:
		u.Locked = true
		u.Hint = "unlock the keyring in your desktop session, then: bloq-agent unlock"
	case reasonNoBus, reasonNoService, reasonNone:
		u.Hint = HintFile
	default:
		u.Hint = "bloq-agent status"
	}
	return u
}

// named gives the failures of go-keyring our words. It has types for few.
func named(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	switch {
	case errors.Is(err, keyring.ErrNotFound):
		return ErrNotFound
	case strings.Contains(text, "failed to unlock correct collection"):
		return unavailable(reasonLocked, nil)
	case strings.Contains(text, "was not provided by any .service files"):
		return unavailable(reasonNoService, nil)
	case strings.Contains(text, "connect: no such file"), strings.Contains(text, "connection refused"), strings.Contains(text, "closed"):
		return unavailable(reasonGone, err)
	}
	return unavailable(reasonRefused, err)
}
