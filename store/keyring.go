package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	keyring "github.com/zalando/go-keyring"
)

const (
	keyringService = "bloq-agent"
	keyringTimeout = 5 * time.Second
)

// Keyring keeps items in the desktop's Secret Service (macOS: the keychain).
//
// go-keyring can neither be cancelled nor given a deadline, and it waits for
// ever on a frozen service. So each call runs in a goroutine of its own, one
// at a time; if it does not end in time we stop waiting, and until it ends by
// itself every other call fails at once instead of piling up behind it.
type Keyring struct {
	slot      chan struct{} // holds one value while a call runs
	abandoned atomic.Bool   // nobody waits any more for the call that runs
}

// NewKeyring does not touch the keyring yet.
func NewKeyring() *Keyring { return &Keyring{slot: make(chan struct{}, 1)} }

// Name is "keyring".
func (k *Keyring) Name() string { return "keyring" }

// Load reads an item.
func (k *Keyring) Load(ctx context.Context, id string) (Item, error) {
	secret, err := k.call(ctx, id, func() (string, error) { return keyring.Get(keyringService, id) })
	if err != nil {
		return Item{}, err
	}
	return decodeItem([]byte(secret))
}

// Save writes an item; the service has it on its disk when this returns.
func (k *Keyring) Save(ctx context.Context, id string, item Item) error {
	b, err := encodeItem(item)
	if err != nil {
		return err
	}
	defer clear(b)
	_, err = k.call(ctx, id, func() (string, error) { return "", keyring.Set(keyringService, id, string(b)) })
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

func (k *Keyring) call(ctx context.Context, id string, f func() (string, error)) (string, error) {
	if err := usable(ctx, id); err != nil {
		return "", err
	}
	if err := haveBus(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, keyringTimeout)
	defer cancel()
	if k.abandoned.Load() {
		return "", frozen()
	}
	select {
	case k.slot <- struct{}{}:
	case <-ctx.Done():
		return "", frozen()
	}
	done := make(chan keyringResult, 1)
	go func() { // ends when the Secret Service answers
		secret, err := f()
		done <- keyringResult{secret, err}
		k.abandoned.Store(false)
		<-k.slot
	}()
	select {
	case r := <-done:
		return r.secret, named(r.err)
	case <-ctx.Done():
		k.abandoned.Store(true)
		return "", frozen()
	}
}

func frozen() error {
	return &Unavailable{Store: "keyring", Reason: "does not answer", Hint: "bloq-agent status"}
}

// haveBus keeps the D-Bus library from starting a bus of its own with
// dbus-launch: nobody would ever unlock a keyring there.
func haveBus() error {
	if a := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); a != "" && a != "autolaunch:" || busIsOptional {
		return nil
	}
	if _, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid())); err == nil {
		return nil
	}
	return &Unavailable{
		Store: "keyring", Reason: "cannot be reached: there is no D-Bus session here",
		Hint: "bloq-agent login --store memory",
	}
}

// named gives the system's failures our words. The libraries below have types
// for few of them.
func named(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	u := &Unavailable{Store: "keyring", Err: err, Reason: "refused"}
	switch {
	case errors.Is(err, keyring.ErrNotFound):
		return ErrNotFound
	case strings.Contains(text, "failed to unlock correct collection"):
		u.Reason, u.Locked, u.Err = "is locked", true, nil
		u.Hint = "unlock it in your desktop session, then retry"
	case strings.Contains(text, "was not provided by any .service files"):
		u.Reason, u.Err = "is not there: no Secret Service is installed", nil
		u.Hint = "bloq-agent login --store memory"
	case strings.Contains(text, "connect: no such file"), strings.Contains(text, "connection refused"), strings.Contains(text, "closed"):
		u.Reason = "is gone"
	}
	return u
}
