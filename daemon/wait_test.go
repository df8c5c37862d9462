package daemon

import (
	"strings"
	"sync"
	"testing"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/ipc"
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
	d := newDaemon(t)
	d.hub.init()
	watches := make(chan struct{})
	stands := sync.OnceFunc(func() { close(watches) }) // a signal that means nothing asks again
	d.pause = func(n int) time.Duration {
		switch n {
		case 0:
			return 0
		case 1: // the watch stands, and the look that is for the time before is over
			stands()
		}
		return time.Hour
	}
	e := accounts.FromAccountsURL("http://127.0.0.1:1")
	facts := store.Profile{
		Name: "default", ID: store.NewID(), Store: "keyring",
		TokenURL: e.Token, LoginURL: e.Login, KeysURL: e.Keys, NodesURL: e.Nodes,
	}
	do(t, d.records.Put(facts))
	do(t, d.options.Stores.Keyring.Save(t.Context(), facts.ID, store.Item{Origin: "http://127.0.0.1:1", RefreshToken: store.NewSecret([]byte("x"))}))
	service.Lock(t)
	p := d.profile("default")
	d.openAll(t.Context())
	if problem := p.state.Load().problem; problem == nil || problem.Code != ipc.CodeLocked {
		t.Fatalf("%+v", problem)
	}
	wait(t, watches, "the watch")
	events := d.hub.subscribe()
	service.Unlock(t)
	for p.state.Load().problem != nil {
		wait(t, events, "the profile goes on")
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
	d := newDaemon(t)
	for name, watched := range map[string]bool{"keyring": true, "file": false, "credential": false, "memory": false} {
		w := d.waitFor(name)
		if !w.wait(t.Context()) || (w.changed != nil) != watched {
			t.Errorf("%s: watched %v", name, !watched)
		}
	}
}
