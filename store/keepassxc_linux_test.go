package store_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"bloq-agent/store"
	"bloq-agent/store/storetest"
)

const (
	answerKeePassXC = "the keyring is asking for your consent: answer KeePassXC's window"
	keePassXCDenied = "the keyring did not get your consent: KeePassXC's window was dismissed"
)

// soon is Load by a caller who does not wait until a person has come.
func soon(t *testing.T, k *store.Keyring, id string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := k.Load(ctx, id)
	return err
}

// asks checks what a person reads, and that it is a person who must act.
func asks(t *testing.T, err error, want string) {
	t.Helper()
	var u *store.Unavailable
	if !errors.As(err, &u) || !u.Locked || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestKeePassXCAsksOnceAndIsHeardLate(t *testing.T) {
	service := storetest.StartKeePassXC(t)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", service.Address())
	item, id := store.Item{Origin: "https://x.example", RefreshToken: store.NewSecret([]byte("a year long"))}, store.NewID()
	first := store.NewKeyring() // of the daemon that stored the login
	defer first.Close()
	do(t, first.Save(t.Context(), id, item))
	do(t, store.Probe(t.Context(), first))
	if _, err := first.Load(t.Context(), id); err != nil || service.Windows(t) > 0 {
		t.Errorf("who made an item is asked for consent to it: %v", err)
	}

	k := store.NewKeyring() // of the next daemon
	defer k.Close()
	changed := k.Watch(t.Context())
	for range 3 {
		asks(t, soon(t, k, id), answerKeePassXC)
	}
	if n := service.Windows(t); n != 1 {
		t.Errorf("%d windows", n)
	}
	service.Allow(t)
	loads(t, k, id, item, changed)
	for range 3 { // each exchange reads the item again
		_, err := k.Load(t.Context(), id)
		do(t, err)
	}
	do(t, k.Save(t.Context(), id, item))

	do(t, syscall.Kill(service.PID, syscall.SIGKILL))
	gone := func() bool {
		var u *store.Unavailable
		return errors.As(soon(t, k, id), &u) && !u.Locked
	}
	for !gone() {
		heard(t, changed)
	}
	service.Start(t)
	asks(t, soon(t, k, id), answerKeePassXC) // another service has no consent
	service.Allow(t)
	loads(t, k, id, item, changed)
}

func TestARefusalIsNotAskedAgain(t *testing.T) {
	service := storetest.StartKeePassXC(t)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", service.Address())
	item, id := store.Item{Origin: "https://x.example", RefreshToken: store.NewSecret([]byte("a year long"))}, store.NewID()
	first, k := store.NewKeyring(), store.NewKeyring()
	defer first.Close()
	defer k.Close()
	do(t, first.Save(t.Context(), id, item))

	asks(t, soon(t, k, id), answerKeePassXC)
	k.AskAgain() // a window that is open is enough
	asks(t, soon(t, k, id), answerKeePassXC)
	if n := service.Windows(t); n != 1 {
		t.Errorf("%d windows", n)
	}
	changed := k.Watch(t.Context())
	service.Dismiss(t)
	for err := soon(t, k, id); err.Error() == answerKeePassXC; err = soon(t, k, id) {
		heard(t, changed)
	}
	do(t, first.Save(t.Context(), id, item)) // the signals of another's change ask nobody
	asks(t, soon(t, k, id), keePassXCDenied)
	asks(t, k.Save(t.Context(), id, item), keePassXCDenied)
	asks(t, k.Delete(t.Context(), id), keePassXCDenied)
	if n := service.Windows(t); n != 0 {
		t.Errorf("%d windows", n)
	}
	k.AskAgain()
	asks(t, soon(t, k, id), answerKeePassXC)
	service.Allow(t)
	loads(t, k, id, item, changed)
}

// loads waits until an answer has been heard and the item is read.
func loads(t *testing.T, k *store.Keyring, id string, item store.Item, changed <-chan struct{}) {
	t.Helper()
	got, err := k.Load(t.Context(), id)
	for ; err != nil; got, err = k.Load(t.Context(), id) {
		asks(t, err, answerKeePassXC)
		heard(t, changed)
	}
	if !got.Equal(item) {
		t.Error("another item")
	}
}

func heard(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was heard")
	}
}

func empty(c <-chan struct{}) {
	for len(c) > 0 {
		<-c
	}
}
