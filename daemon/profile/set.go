package profile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/refresher"
	"bloq-agent/store"
	"bloq-agent/store/turn"
)

// Settings are what the configuration says of profiles.
type Settings struct {
	// Ready says that there is a configuration. Without one no secrets are read,
	// because it may name other URLs for them.
	Ready bool
	// Names are the profiles that the configuration has a table for.
	Names []string
	// Store is where a new login is stored: keyring, file or memory.
	Store string
	// Endpoints are the URLs of a profile: what its login recorded, with what the
	// configuration overrides.
	Endpoints func(store.Profile) accounts.Endpoints
	Client    accounts.Options
	// TrustHint is what a person does about an authority that Client does not trust.
	TrustHint string
	// Restart is what a person types to restart the daemon.
	Restart string
}

// Stores are the places where secrets are stored.
type Stores struct {
	Keyring *store.Keyring
	File    *store.File
	Memory  *store.Memory
	// Credentials is systemd's directory of credentials, or "".
	Credentials string
}

// Named returns the store called name, for one profile.
func (s Stores) Named(name, profile string) (store.Store, error) {
	switch name {
	case "keyring":
		return s.Keyring, nil
	case "file":
		return s.File, nil
	case "memory":
		return s.Memory, nil
	case "credential":
		return store.NewCredential(s.Credentials, profile, s.File), nil
	}
	return nil, fmt.Errorf("there is no store %q (keyring, file, memory)", name)
}

// A Set is the profiles of one state directory.
type Set struct {
	records  *store.Profiles
	stores   Stores
	clock    refresher.Clock
	on       func(Event)
	settings atomic.Pointer[Settings]
	members  atomic.Pointer[members]
	pause    func(n int) time.Duration // lookPause; tests replace it

	lock

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup // what background started
	adopts  turn.Mutex     // held by one adoption at a time, see ownerOf

	mu    sync.Mutex          // guards known, members against two writers, and running
	known map[string]*Profile // every profile that ever was a member
}

// members are the profiles that exist: those with a record and those that the
// configuration names. They are never modified.
type members struct {
	byName map[string]*Profile
	all    []*Profile // sorted by name
}

// Open makes the profiles of records without reading their secrets, which Start
// does. It calls on with each Event; on must not block.
func Open(records *store.Profiles, settings Settings, stores Stores, kept []Kept, clock refresher.Clock, on func(Event)) *Set {
	s := &Set{
		records: records, stores: stores, clock: clock, on: on, pause: lookPause,
		known: map[string]*Profile{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.settings.Store(&settings)
	s.locked.Store(s.records.Dir().Has(lockedFile))
	stores.File.CheckFirst(s.records.Dir())
	s.recordCredentials()
	s.update()
	if s.locked.Load() {
		return s
	}
	for _, p := range s.Profiles() {
		for _, k := range kept {
			if p.state.Load().phase == Opening && k.ID == p.record().ID && k.grant(clock) != nil {
				first := *p.state.Load()
				first.kept = &k
				p.state.Store(&first) // nothing else knows the profile yet
				p.generation.Store(k.Generation)
			}
		}
	}
	return s
}

// Start reads the secrets of every profile at the same time, so that a frozen
// keyring costs its time-out once, and returns when each serves or says why not.
func (s *Set) Start() {
	s.each(func(p *Profile) {
		if p.state.Load().phase == Opening {
			p.reopen()
			return
		}
		p.dropSoon() // a logout that could not delete everything
	})
}

// Close stops every profile and waits for the exchanges under way, whose refresh
// tokens are saved.
func (s *Set) Close() {
	s.mu.Lock() // background starts nothing from here on
	s.cancel()
	s.mu.Unlock()
	for _, p := range s.Profiles() {
		if what := p.state.Load().waitsFor(); what != "" {
			s.on(Event{Kind: StoppingWaits, Profile: p.name, Detail: what})
		}
	}
	s.each(func(p *Profile) {
		p.change.Lock()
		defer p.change.Unlock()
		st := p.state.Load()
		st.halt()
		err := cmp.Or(st.unsavedErr(), saveHeld(st))
		if err != nil {
			s.on(Event{Kind: StoppingLoses, Profile: p.name, Err: err, Command: rescue(p, st)})
		}
	})
	s.running.Wait()
	s.stores.Keyring.Close()
	_ = s.records.Close() // another daemon may open the directory
}

// rescue is a command that saves the refresh token which only memory has, or "".
func rescue(p *Profile, s *state) string {
	if store.Place(s.login.store.Name()) == "file" {
		return "" // whatever keeps it from being written is not ours to mend
	}
	return "bloq-agent store move --to file --profile " + p.name
}

func (s *Set) stopping() bool { return s.ctx.Err() != nil }

// background runs f beside its caller, unless the Set is closed. Its ctx ends when
// it is.
func (s *Set) background(f func(ctx context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping() {
		s.running.Go(func() { f(s.ctx) })
	}
}

// Profiles returns the profiles that exist, sorted by name.
func (s *Set) Profiles() []*Profile { return s.members.Load().all }

// Lookup returns the profile called name.
func (s *Set) Lookup(name string) (*Profile, bool) {
	p, ok := s.members.Load().byName[name]
	return p, ok
}

// update makes the members anew, after a change of the records or the settings.
func (s *Set) update() {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &members{byName: map[string]*Profile{}}
	for _, r := range s.records.List() {
		m.byName[r.Name] = s.get(r.Name)
	}
	for _, name := range s.settings.Load().Names {
		m.byName[name] = s.get(name)
	}
	for _, name := range slices.Sorted(maps.Keys(m.byName)) {
		m.all = append(m.all, m.byName[name])
	}
	s.members.Store(m)
}

// get returns the profile called name, made if it was not known. The caller holds
// s.mu.
func (s *Set) get(name string) *Profile {
	if p := s.known[name]; p != nil {
		return p
	}
	p := &Profile{entry: entry{words{s, name}}}
	first := &state{phase: Opening, problem: opening(name), endpoints: s.settings.Load().Endpoints(p.record()), replaced: make(chan struct{})}
	if p.record().Store == "" {
		first.phase, first.problem = Absent, p.needsLogin("needs login")
	}
	p.state.Store(first)
	s.known[name] = p
	return p
}

func opening(name string) *Problem {
	return &Problem{Kind: Unavailable, Phase: Opening, Detail: name + ": its secrets are being read"}
}

// candidate returns the profile called name for a login that may make it one of
// the members.
func (s *Set) candidate(name string) *Profile {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(name)
}

// each runs f for all profiles that were ever known, at the same time, and waits.
func (s *Set) each(f func(*Profile)) {
	s.mu.Lock()
	var all []*Profile
	for _, name := range slices.Sorted(maps.Keys(s.known)) { // so that a simulation repeats
		all = append(all, s.known[name])
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(func() { f(p) })
	}
	wg.Wait()
}

// Misplaced returns a *Problem if the state directory is not the one at its path any
// more. It looks at the disk, so it is not for a profile that serves. A disk that does
// not answer is Unavailable.
func (s *Set) Misplaced() error {
	err := s.records.Dir().Glance()
	if errors.Is(err, store.ErrNoAnswer) {
		return &Problem{Kind: Unavailable, Detail: "the state directory cannot be looked at: " + err.Error(), Hint: "bloq-agent status"}
	}
	if err != nil {
		return &Problem{Kind: Configuration, Detail: err.Error(), Hint: s.settings.Load().Restart}
	}
	return nil
}

// Hint tells every refresher that the network may be back.
func (s *Set) Hint() {
	for _, p := range s.Profiles() {
		if st := p.state.Load(); st.phase == Serving {
			st.refresher.Hint()
		}
	}
}
