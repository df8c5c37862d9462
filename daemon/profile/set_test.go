package profile

import (
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"bloq-agent/accounts"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A place is the directories of one agent, and what its profiles report.
type place struct {
	dir    string
	memory *store.Memory
	clock  refresher.Clock

	mu     sync.Mutex
	events []Event
	heard  chan struct{} // closed at the next event
}

func newPlace(t *testing.T) *place {
	return &place{dir: t.TempDir(), memory: store.NewMemory(), clock: refresher.RuntimeClock(), heard: make(chan struct{})}
}

func (p *place) state() string { return filepath.Join(p.dir, "state") }

func (p *place) stores() Stores {
	return Stores{
		Keyring: store.NewKeyring(), Memory: p.memory,
		File: store.NewFile(p.state(), store.NewKey(filepath.Join(p.dir, "key"), "")),
	}
}

func recordedURLs(r store.Profile) accounts.Endpoints {
	return accounts.Endpoints{Login: r.LoginURL, Token: r.TokenURL, Keys: r.KeysURL, Nodes: r.NodesURL}
}

func defaults() Settings {
	return Settings{Ready: true, Store: "memory", Endpoints: recordedURLs, Restart: "restart it"}
}

// open is a Set on p until the test ends. Its profiles are not started.
func (p *place) open(t *testing.T) *Set {
	t.Helper()
	return p.openWith(t, nil)
}

// openWith is open with what the daemon before has kept.
func (p *place) openWith(t *testing.T, kept []Kept) *Set {
	t.Helper()
	records, err := store.OpenProfiles(p.state())
	do(t, err)
	s := Open(records, defaults(), p.stores(), kept, p.clock, p.hear)
	t.Cleanup(s.Close)
	return s
}

// stateDir is a state directory that is open until the test ends.
func stateDir(t *testing.T) *store.Dir {
	t.Helper()
	records, err := store.OpenProfiles(t.TempDir())
	do(t, err)
	t.Cleanup(func() { do(t, records.Close()) })
	return records.Dir()
}

func newSet(t *testing.T) *Set { return newPlace(t).open(t) }

func (p *place) hear(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, e)
	close(p.heard)
	p.heard = make(chan struct{})
}

// until waits for events until is reports true.
func (p *place) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for {
		p.mu.Lock()
		heard := p.heard
		p.mu.Unlock()
		if is() {
			return
		}
		wait(t, heard, what)
	}
}

func (p *place) of(kind EventKind) []Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.events), func(e Event) bool { return e.Kind != kind })
}

// put records a login and its secrets.
func (s *Set) put(t *testing.T, name, storeName string, item store.Item, e accounts.Endpoints) *Profile {
	t.Helper()
	r := store.Profile{
		Name: name, ID: store.NewID(), Store: storeName,
		TokenURL: e.Token, LoginURL: e.Login, KeysURL: e.Keys, NodesURL: e.Nodes,
	}
	st, err := s.stores.Named(storeName, name)
	do(t, err)
	do(t, st.Save(t.Context(), r.ID, item))
	do(t, s.records.Put(r))
	s.update()
	p, _ := s.Lookup(name)
	return p
}
