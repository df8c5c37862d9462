package store_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/store"
	"bloq-agent/store/storetest"

	"filippo.io/age"
)

// A shelf is a Service in memory, which can fail or freeze.
type shelf struct {
	mu     sync.Mutex
	items  map[string][]byte
	err    error
	frozen bool
}

func (s *shelf) do(ctx context.Context, f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen {
		<-ctx.Done()
		return ctx.Err()
	}
	if s.err != nil {
		return s.err
	}
	return f()
}

func (s *shelf) Load(ctx context.Context, id string) (secret []byte, err error) {
	err = s.do(ctx, func() error {
		if secret = bytes.Clone(s.items[id]); secret == nil {
			return store.ErrNotFound
		}
		return nil
	})
	return secret, err
}

func (s *shelf) Save(ctx context.Context, id string, secret []byte) error {
	return s.do(ctx, func() error {
		s.items[id] = bytes.Clone(secret)
		return nil
	})
}

func (s *shelf) Delete(ctx context.Context, id string) error {
	return s.do(ctx, func() error {
		delete(s.items, id)
		return nil
	})
}

func (s *shelf) Watch(context.Context) <-chan struct{} { return nil }
func (s *shelf) AskAgain()                             {}
func (s *shelf) Close()                                {}

func TestAKeyringOfAnotherService(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewKeyringOf(&shelf{items: map[string][]byte{}}) })
}

// A call has 5 s, and one that took them speaks for those of the next second.
func TestAKeyringIsBoundedWhateverItsService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{items: map[string][]byte{}, err: store.KeyringError("locked", nil)}
		k, start := store.NewKeyringOf(s), time.Now()
		fails := func(reason string, after time.Duration) {
			t.Helper()
			var u *store.Unavailable
			if err := store.Probe(t.Context(), k); !errors.As(err, &u) || u.Reason != reason || u.Locked != (reason == "locked") {
				t.Errorf("%v, want %s", err, reason)
			}
			if took := time.Since(start); took != after {
				t.Errorf("%s after %v, want %v", reason, took, after)
			}
		}
		fails("locked", 0)
		s.err, s.frozen = nil, true
		fails("frozen", 5*time.Second)
		s.frozen = false
		fails("frozen", 5*time.Second) // remembered
		time.Sleep(time.Second)
		do(t, store.Probe(t.Context(), k))
	})
}

// A label names the recipient before the plain text.
type label struct{}

func (label) Identity(text string) (*age.X25519Identity, error) { return age.ParseX25519Identity(text) }

func (label) Encrypt(plain []byte, to age.Recipient) ([]byte, error) {
	return append([]byte(to.(*age.X25519Recipient).String()+"\n"), plain...), nil
}

func (label) Decrypt(sealed []byte, identity age.Identity) ([]byte, error) {
	to, plain, ok := bytes.Cut(sealed, []byte("\n"))
	switch {
	case !ok:
		return nil, store.ErrDamaged
	case string(to) != identity.(*age.X25519Identity).Recipient().String():
		return nil, store.ErrOtherKey
	}
	return bytes.Clone(plain), nil
}

func TestAFileStoreOfAnotherCipher(t *testing.T) {
	before := store.ReplaceCipher(label{})
	t.Cleanup(func() { store.ReplaceCipher(before) })
	dir, keys := t.TempDir(), t.TempDir()
	storetest.Run(t, func(*testing.T) store.Store { return store.NewFile(dir, store.NewKey(keys, "")) })
	id := store.NewID()
	do(t, store.NewFile(dir, store.NewKey(keys, "")).Save(t.Context(), id, store.Item{Origin: "https://x.example"}))
	other := store.NewKey(t.TempDir(), "")
	do(t, store.Probe(t.Context(), store.NewFile(t.TempDir(), other))) // it is made now
	if _, err := store.NewFile(dir, other).Load(t.Context(), id); !errors.Is(err, store.ErrOtherKey) {
		t.Errorf("with another key: %v", err)
	}
}
