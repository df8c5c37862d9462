package profile

import (
	"strings"
	"sync"
	"testing"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/store"
	"bloq-agent/store/storetest"
)

// A keyring that is unlocked is noticed by the signal of the bus, and not by a
// look now and then: here there is none for an hour.
func TestTheSignalAloneWakesAProfile(t *testing.T) {
	service := storetest.StartSecretService(t)
	for _, kv := range service.Env {
		if name, value, _ := strings.Cut(kv, "="); name == "DBUS_SESSION_BUS_ADDRESS" {
			t.Setenv(name, value)
		}
	}
	place := newPlace(t)
	s := place.open(t)
	watches := make(chan struct{})
	stands := sync.OnceFunc(func() { close(watches) }) // a signal that means nothing asks again
	s.pause = func(n int) time.Duration {
		switch n {
		case 0:
			return 0
		case 1: // the watch stands, and the look that is for the time before is over
			stands()
		}
		return time.Hour
	}
	p := s.put(t, "default", "keyring", store.Item{Origin: "http://127.0.0.1:1", RefreshToken: store.NewSecret([]byte("x"))},
		accounts.FromAccountsURL("http://127.0.0.1:1"))
	service.Lock(t)
	s.Start()
	if problem := p.state.Load().problem; problem == nil || problem.Kind != NeedsUnlock {
		t.Fatalf("%+v", problem)
	}
	wait(t, watches, "the watch")
	service.Unlock(t)
	for p.state.Load().problem != nil {
		place.mu.Lock()
		heard := place.heard
		place.mu.Unlock()
		if p.state.Load().problem != nil {
			wait(t, heard, "the profile goes on")
		}
	}
}

func wait[T any](t *testing.T, c <-chan T, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("did not happen: %s", what)
	}
}

// Only a keyring has a bus to listen to.
func TestNoWatchForOtherStores(t *testing.T) {
	service := storetest.StartBus(t, false)
	for _, kv := range service.Env {
		if name, value, _ := strings.Cut(kv, "="); name == "DBUS_SESSION_BUS_ADDRESS" {
			t.Setenv(name, value)
		}
	}
	set := newSet(t)
	set.pause = func(int) time.Duration { return 0 }
	for name, watched := range map[string]bool{"keyring": true, "file": false, "credential": false, "memory": false} {
		w := &storeWatch{set: set, store: name}
		if _, ok := w.next(t.Context(), nil, nil); !ok || (w.signals != nil) != watched {
			t.Errorf("%s: watched %v", name, !watched)
		}
	}
}
