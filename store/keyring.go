package store

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	keyringService = "bloq-agent"
	keyringTimeout = 5 * time.Second
)

// HintFile is the way out where there will never be a keyring. It names no
// profile: a Store knows none.
const HintFile = "bloq-agent login --store file"

// A Service keeps secrets by id. There is one, the desktop's; a simulation puts
// another in its place.
type Service interface {
	// Load gives a secret that is the caller's own, or ErrNotFound.
	Load(ctx context.Context, id string) ([]byte, error)
	// Save keeps a copy, and returns nil when that is on the service's disk.
	Save(ctx context.Context, id string, secret []byte) error
	Delete(ctx context.Context, id string) error
	// Watch, AskAgain and Close are Keyring's.
	Watch(ctx context.Context) <-chan struct{}
	AskAgain()
	Close()
}

// Reasons for which a keyring cannot be had. They are words of the status.
const (
	reasonNoBus     = "no D-Bus session"
	reasonUntrusted = "D-Bus session not trusted"
	reasonNoService = "no Secret Service"
	reasonNone      = "no collection"
	reasonLocked    = "locked"
	reasonFrozen    = "frozen"
	reasonGone      = "gone"
	reasonRefused   = "refused"
	reasonConsent   = "waiting for your consent"
	reasonDenied    = "no consent"
)

// theKeyring stands for a program whose name is not known.
const theKeyring = "the keyring"

// Keyring keeps items in the desktop's Secret Service (macOS: the keychain). Each
// call ends within keyringTimeout, whatever becomes of the service.
type Keyring struct {
	service Service

	mu     sync.Mutex
	frozen time.Time // when a call last took all its time in vain
}

// frozenFor is how long a time-out speaks for the calls that come after it. They
// were made while it ran, by people who would otherwise wait once more.
const frozenFor = time.Second

// NewKeyring does not touch the keyring yet.
func NewKeyring() *Keyring { return NewKeyringOf(&desktop{}) }

// NewKeyringOf keeps items in another service than the desktop's.
func NewKeyringOf(s Service) *Keyring { return &Keyring{service: s} }

// Name is "keyring".
func (k *Keyring) Name() string { return "keyring" }

// Load reads an item.
func (k *Keyring) Load(ctx context.Context, id string) (item Item, err error) {
	err = k.bounded(ctx, id, func(ctx context.Context) error {
		b, err := k.service.Load(ctx, id)
		if err != nil {
			return err
		}
		defer clear(b)
		item, err = decodeItem(b)
		return err
	})
	return item, err
}

// Save writes an item; the service has it on its disk when this returns.
func (k *Keyring) Save(ctx context.Context, id string, item Item) error {
	b, err := encodeItem(item)
	if err != nil {
		return err
	}
	defer clear(b)
	return k.bounded(ctx, id, func(ctx context.Context) error { return k.service.Save(ctx, id, b) })
}

// Delete removes an item.
func (k *Keyring) Delete(ctx context.Context, id string) error {
	err := k.bounded(ctx, id, func(ctx context.Context) error { return k.service.Delete(ctx, id) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Watch sends a value, until ctx ends, whenever something about the keyring may
// have changed: it was unlocked or locked, came or went, or a person has answered a
// question. It is a hint; values may be missed. It is nil if the keyring cannot be
// watched now, and closed when that ends.
func (k *Keyring) Watch(ctx context.Context) <-chan struct{} { return k.service.Watch(ctx) }

// AskAgain lets the keyring ask a person who has refused before.
func (k *Keyring) AskAgain() { k.service.AskAgain() }

// Close ends what is open to the keyring, and with it the consent that a person has
// given. The next call connects anew.
func (k *Keyring) Close() { k.service.Close() }

// bounded gives f its time. However it fails after that, it was too slow, unless it
// waits for a person.
func (k *Keyring) bounded(callers context.Context, id string, f func(context.Context) error) error {
	if err := usable(callers, id); err != nil {
		return err
	}
	k.mu.Lock()
	frozen := time.Since(k.frozen) < frozenFor
	k.mu.Unlock()
	if frozen {
		return unavailable(reasonFrozen, nil)
	}
	ctx, cancel := context.WithTimeout(callers, keyringTimeout)
	defer cancel()
	err := f(ctx)
	if err == nil || ctx.Err() == nil || isLocked(err) {
		return err
	}
	if callers.Err() == nil { // it was not just a caller in a hurry
		k.mu.Lock()
		k.frozen = time.Now()
		k.mu.Unlock()
	}
	return unavailable(reasonFrozen, nil)
}

// KeyringError is what a Service fails with for one of the reasons above: "locked",
// "frozen", "gone" and so on. Err is what the system said; it may be nil.
func KeyringError(reason string, err error) error { return unavailable(reason, err) }

// unavailable explains a reason, and what to do about it.
func unavailable(reason string, err error) error {
	u := &Unavailable{Store: "keyring", Reason: reason, Err: err}
	switch reason {
	case reasonLocked:
		u.Locked = true
		u.Hint = "unlock the keyring in your desktop session, then: bloq-agent unlock"
	case reasonNoBus, reasonUntrusted, reasonNoService, reasonNone:
		u.Hint = HintFile
	default:
		u.Hint = "bloq-agent status"
	}
	return u
}

func lockedCollection(label string) error {
	return unavailable(reasonLocked, errors.New("the collection "+label+" is locked"))
}

func consentWanted(program string) error {
	return consent(reasonConsent, "the keyring is asking for your consent: answer "+program+"'s window",
		"allow bloq-agent in "+program+"'s window")
}

func consentDenied(program string) error {
	return consent(reasonDenied, "the keyring did not get your consent: "+program+"'s window was dismissed",
		"bloq-agent unlock, then allow bloq-agent in "+program+"'s window")
}

func consent(reason, sentence, hint string) error {
	return &Unavailable{Store: "keyring", Reason: reason, Sentence: sentence, Hint: hint, Locked: true}
}

func isLocked(err error) bool {
	var u *Unavailable
	return errors.As(err, &u) && u.Locked
}

// plain is text for a sentence, or other if text has anything that might spoil one.
func plain(text, other string) string {
	if text == "" || len(text) > 64 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
		return other
	}
	return text
}
