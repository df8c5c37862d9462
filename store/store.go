// Package store is where secrets rest, and where the facts about profiles lie
// beside them.
//
// One Item per profile holds all of its secrets and the origin that they
// belong to, because no transaction of a Secret Service spans two items. What
// is not secret (names, URLs, times) is in profiles.json, see Profiles.
package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Errors that every Store gives.
var (
	// ErrNotFound says that there is no such item.
	ErrNotFound = errors.New("not in the store")
	// ErrDamaged says that there is one, and that it cannot be read.
	ErrDamaged = errors.New("item is damaged")
	// ErrOtherKey says that there is one, and that its key is not here.
	ErrOtherKey = errors.New("the key of the item is not here")
)

// A Store keeps items by their profile's id. Its methods may be called by
// several goroutines.
type Store interface {
	// Name is the word for it in the configuration and the status.
	Name() string
	// Load gives an item that is the caller's own.
	Load(ctx context.Context, id string) (Item, error)
	// Save returns nil when the item is durable. The caller keeps its own.
	Save(ctx context.Context, id string, item Item) error
	// Delete is no error if there is nothing to delete.
	Delete(ctx context.Context, id string) error
}

// An Unavailable says that a store cannot be used now, and what to do.
type Unavailable struct {
	Store  string
	Reason string // "locked", "frozen", …
	// Sentence says it where the reason is too little; may be empty.
	Sentence string
	Hint     string // a command or a step for the person; may be empty
	Locked   bool   // a person must unlock it, or answer its question
	Err      error  // what the system said; may be nil
}

func (u *Unavailable) Error() string {
	text := u.Sentence
	if text == "" {
		text = "waiting for the " + u.Store + " (" + u.Reason + ")"
	}
	if u.Err != nil {
		text += ": " + u.Err.Error()
	}
	return text
}

// Untouched reports whether the store certainly took nothing of what it was given.
func (u *Unavailable) Untouched() bool {
	switch u.Reason {
	case reasonNoBus, reasonUntrusted, reasonNoService, reasonNone, reasonLocked, reasonDenied:
		return true
	}
	return false
}

// Unwrap is what the system said.
func (u *Unavailable) Unwrap() error { return u.Err }

// An Item is the secrets of one profile.
type Item struct {
	// Origin is that of the token URL, like https://accounts.bloq.cloud. The
	// secrets must not be sent to any other.
	Origin       string
	RefreshToken Secret
	// ClientSecret is kept only where the person asked for it, ClientID with it.
	ClientID     string
	ClientSecret Secret
	// AccountToken is of the last login with a password; it lasts until
	// AccountExpiry.
	AccountToken  Secret
	AccountExpiry time.Time
	// Source tells which credential the item comes from; see Credential.
	Source string
	// Serial is raised by each save, so that of two copies the newer one is known.
	// It is 0 in items of before it was kept, and in credentials.
	Serial uint64
}

// Clone has secrets of its own.
func (i Item) Clone() Item {
	i.RefreshToken, i.ClientSecret, i.AccountToken = i.RefreshToken.Clone(), i.ClientSecret.Clone(), i.AccountToken.Clone()
	return i
}

// Equal reports whether two items are the same, secrets included.
func (i Item) Equal(o Item) bool {
	return i.Origin == o.Origin && i.ClientID == o.ClientID && i.Source == o.Source && i.Serial == o.Serial && i.AccountExpiry.Equal(o.AccountExpiry) &&
		i.RefreshToken.Equal(o.RefreshToken) && i.ClientSecret.Equal(o.ClientSecret) && i.AccountToken.Equal(o.AccountToken)
}

// Wipe overwrites the secrets.
func (i *Item) Wipe() {
	i.RefreshToken.Wipe()
	i.ClientSecret.Wipe()
	i.AccountToken.Wipe()
}

const probePrefix = "probe-"

// NewID is a random profile id: 32 hexadecimal digits. Items are kept under it
// and not under the profile's name, so that two state directories never share
// one by accident.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

func checkID(id string) error {
	hexID := strings.TrimPrefix(id, probePrefix)
	if b, err := hex.DecodeString(hexID); err != nil || len(b) != 16 || strings.ToLower(hexID) != hexID {
		return fmt.Errorf("%.80q is no profile id", id)
	}
	return nil
}

// Probe proves that s can keep a secret now, by saving, reading back and
// deleting one.
func Probe(ctx context.Context, s Store) error {
	id := probePrefix + NewID()
	token := NewSecret([]byte(NewID()))
	if err := s.Save(ctx, id, Item{Origin: "https://probe.invalid", RefreshToken: token}); err != nil {
		return err
	}
	got, err := s.Load(ctx, id)
	if err == nil && !got.RefreshToken.Equal(token) {
		err = fmt.Errorf("%s gives back another secret than it was given", s.Name())
	}
	if deleteErr := s.Delete(ctx, id); err == nil {
		err = deleteErr
	}
	return err
}
