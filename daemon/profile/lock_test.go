package profile

import (
	"bytes"
	"errors"
	"runtime"
	"testing"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

// serve makes the profile serve with an access token at hand, on an endpoint that
// nobody calls.
func (s *Set) serve(t *testing.T, name, storeName, refreshToken string) *Profile {
	t.Helper()
	p := s.put(t, name, storeName, store.Item{Origin: "http://127.0.0.1:1", RefreshToken: store.NewSecret([]byte(refreshToken))},
		accounts.FromAccountsURL("http://127.0.0.1:1"))
	now := time.Now()
	do(t, p.replace(func(old *state) (plan, error) {
		todo, err := p.open(old)
		todo.from.grant = &refresher.Grant{AccessToken: []byte("access " + name), IssuedAt: now, Expiry: now.Add(time.Hour)}
		return todo, err
	}))
	return p
}

func wantToken(t *testing.T, p *Profile, want string) {
	t.Helper()
	token, err := p.Token(t.Context(), 0)
	if err != nil || string(token.Value) != want {
		t.Errorf("%s: %q, %v; want %q", p.name, token.Value, err, want)
	}
}

func wantKind(t *testing.T, err error, want Kind) {
	t.Helper()
	var problem *Problem
	if !errors.As(err, &problem) || problem.Kind != want {
		t.Errorf("%v; want kind %d", err, want)
	}
}

// A lock clears each secret in a buffer that is ours. Buffers of the libraries that
// secrets pass through are not: SECURITY.md says so.
func TestALockClearsTheBuffersThatAreOurs(t *testing.T) {
	s := newSet(t)
	p := s.serve(t, "work", "file", "refresh token")
	st := p.state.Load()
	refresh := st.login.item.RefreshToken.Reveal()
	buffers := map[string][]byte{"refresh token": refresh, "access token": st.refresher.Snapshot().Grant().AccessToken}
	copies := map[string][]byte{}
	for name, b := range buffers {
		copies[name] = bytes.Clone(b)
	}
	do(t, s.Lock(false))
	if bytes.Equal(refresh, copies["refresh token"]) || !st.login.item.RefreshToken.IsZero() {
		t.Error("the refresh token is left")
	}
	if st.refresher.Snapshot().Grant() != nil {
		t.Error("the access token is left")
	}
	_, err := p.Token(t.Context(), 0)
	wantKind(t, err, NeedsUnlock)
	if s.Keep() != nil {
		t.Error("tokens are kept for the next daemon")
	}
}

// A lock ends what the daemon before has left, too.
func TestALockDropsWhatWasKept(t *testing.T) {
	place := newPlace(t)
	records, err := store.OpenProfiles(place.state())
	do(t, err)
	r := store.Profile{Name: "work", ID: store.NewID(), Store: "keyring"}
	do(t, records.Put(r))
	kept := Kept{
		ID: r.ID, Token: store.NewSecret([]byte("access")), IssuedAt: time.Now(), Expiry: time.Now().Add(time.Hour),
		ExpiryBoot: place.clock.Boottime() + time.Hour,
	}
	s := Open(records, defaults(), place.stores(), []Kept{kept}, place.clock, place.hear)
	t.Cleanup(s.Close)
	if s.Keep() == nil {
		t.Fatal("it is not passed on to the next daemon")
	}
	do(t, s.Lock(false))
	if s.Keep() != nil {
		t.Error("after the lock it is passed on to the next daemon")
	}
}

// The next daemon is locked, and hands no token out.
func TestALockOutlivesARestart(t *testing.T) {
	place := newPlace(t)
	s := place.open(t)
	s.serve(t, "work", "file", "refresh token")
	do(t, s.Lock(false))
	s.Close()
	s = place.open(t)
	s.Start()
	p, _ := s.Lookup("work")
	if phase := p.state.Load().phase; !s.Locked() || phase != Locked {
		t.Errorf("locked %v, phase %d", s.Locked(), phase)
	}
	if p.state.Load().login != nil {
		t.Error("the secrets were read")
	}
}

// A wish to lock does not wait for a change that is under way, at a slow store for
// example: no token is handed out from then on.
func TestALockWaitsForNoChange(t *testing.T) {
	s := newSet(t)
	p := s.serve(t, "work", "file", "refresh token")
	wantToken(t, p, "access work")
	s.wants(true)
	_, err := p.Token(t.Context(), 0)
	wantKind(t, err, NeedsUnlock)
}

// A login that only memory has survives a lock, unless it is forced.
func TestALockKeepsWhatOnlyMemoryHas(t *testing.T) {
	for _, force := range []bool{false, true} {
		s := newSet(t)
		p := s.serve(t, "work", "memory", "refresh token")
		do(t, s.Lock(force))
		_, err := p.Token(t.Context(), 0)
		wantKind(t, err, NeedsUnlock)
		if held := p.Status().HeldInMemory; held == force {
			t.Errorf("force %v: the status says held %v", force, held)
		}
		err = s.Unlock(nil)
		if _, loadErr := s.stores.Memory.Load(t.Context(), p.record().ID); force != errors.Is(loadErr, store.ErrNotFound) {
			t.Errorf("force %v: %v", force, loadErr)
		}
		if (p.state.Load().phase == Serving) == force {
			t.Errorf("force %v: phase %d after unlock: %v", force, p.state.Load().phase, err)
		}
	}
}

// A rotated token that could not be saved stays over lock and unlock, and is saved
// then.
func TestALockKeepsATokenThatIsNotSaved(t *testing.T) {
	place := newPlace(t)
	s := place.open(t)
	p := s.serve(t, "work", "file", "refresh token")
	do(t, p.replace(func(old *state) (plan, error) {
		todo, err := p.reconfigure(old)
		todo.login.store = &spy{Store: s.stores.File, saving: func() error { return errors.New("full") }}
		todo.login.item.RefreshToken = store.NewSecret([]byte("rotated"))
		todo.from.unsaved = store.NewSecret([]byte("rotated"))
		return todo, err
	}))
	place.until(t, "the save fails", func() bool { return p.state.Load().unsavedErr() != nil })
	do(t, s.Lock(false))
	if !p.Status().HeldInMemory {
		t.Error("the status does not say that it is held")
	}
	// The disk has room again.
	p.state.Load().login.store.(*spy).saving = func() error { return nil }
	do(t, s.Unlock(nil))
	if l := p.state.Load().login; l == nil || !l.holds([]byte("rotated")) {
		t.Fatal("the rotated token is lost")
	}
	place.until(t, "it is saved", func() bool {
		item, err := s.stores.File.Load(t.Context(), p.record().ID)
		return err == nil && string(item.RefreshToken.Reveal()) == "rotated"
	})
}

// Of a lock and an unlock at the same time the last one decides, for the profiles
// and for what each answers.
func TestTheLastOfLockAndUnlockDecides(t *testing.T) {
	s := newSet(t)
	p := s.serve(t, "work", "file", "refresh token")
	do(t, s.Lock(false))
	for range 200 {
		locked, unlocked := make(chan error, 1), make(chan error, 1)
		go func() { unlocked <- s.Unlock(nil) }()
		go func() { locked <- s.Lock(false) }()
		lockErr, unlockErr := <-locked, <-unlocked
		is := s.Locked()
		if is != s.lastWish() {
			t.Fatalf("locked %v, but the last wish was %v", is, s.lastWish())
		}
		if phase := p.state.Load().phase; (phase == Locked) != is {
			t.Fatalf("locked %v, and the profile is in phase %d", is, phase)
		}
		if is && lockErr != nil || !is && unlockErr != nil {
			t.Fatalf("locked %v: lock said %v, unlock %v", is, lockErr, unlockErr)
		}
		if s.records.Dir().Has(lockedFile) != is {
			t.Fatalf("locked %v, the mark says otherwise", is)
		}
		do(t, s.Lock(false))
	}
}

// What a lock leaves in memory is sent to no other origin that the configuration
// names meanwhile. It waits there until it names the right one.
func TestAHeldTokenGoesWhereItBelongs(t *testing.T) {
	place := newPlace(t)
	s := place.open(t)
	p := s.serve(t, "work", "file", "refresh token")
	full := &spy{Store: s.stores.File, saving: func() error { return errors.New("full") }}
	do(t, p.replace(func(old *state) (plan, error) {
		todo, err := p.reconfigure(old)
		todo.login.store = full
		todo.from.unsaved = store.NewSecret([]byte("refresh token"))
		return todo, err
	}))
	place.until(t, "the save fails", func() bool { return p.state.Load().unsavedErr() != nil })
	do(t, s.Lock(false))
	other := defaults()
	other.Endpoints = func(store.Profile) accounts.Endpoints { return accounts.FromAccountsURL("http://127.0.0.1:2") }
	for _, settings := range []Settings{other, defaults()} {
		s.settings.Store(&settings)
		_ = s.Unlock(nil)
		st := p.state.Load()
		if right := settings.Endpoints(p.record()).Token == "http://127.0.0.1:1/auth/token"; (st.phase == Serving) != right {
			t.Errorf("to the right origin %v: phase %d, %v", right, st.phase, st.problem)
		}
		if st.login == nil || !st.login.holds([]byte("refresh token")) {
			t.Fatal("the token is lost")
		}
		do(t, s.Lock(false))
	}
}

// A wish that fails counts for nothing: an unlock with a wrong passphrase does not
// let an earlier one pass over the lock between them.
func TestAnUnlockThatFailsUndoesNoLock(t *testing.T) {
	s := newSet(t)
	s.serve(t, "work", "file", "refresh token")
	do(t, s.Protect([]byte("right")))
	do(t, s.Lock(false))
	s.turn.Lock() // the three wait for their turn
	asked := s.last
	errs := make(chan error, 3)
	for i, wish := range []func() error{
		func() error { return s.Unlock([]byte("right")) },
		func() error { return s.Lock(false) },
		func() error { return s.Unlock([]byte("wrong")) },
	} {
		go func() { errs <- wish() }()
		s.awaitWish(asked + uint64(i) + 1)
	}
	s.turn.Unlock()
	failed := 0
	for range 3 {
		if err := <-errs; err != nil {
			failed++
		}
	}
	if !s.Locked() || failed != 2 || !s.records.Dir().Has(lockedFile) {
		t.Errorf("locked %v, %d of three failed", s.Locked(), failed)
	}
}

// A lock that waits for its turn, behind an unlock that waits for a store, stops the
// handing out at once.
func TestALockDoesNotWaitToStopTheHandingOut(t *testing.T) {
	s := newSet(t)
	p := s.serve(t, "work", "file", "refresh token")
	s.turn.Lock()
	locked, asked := make(chan error, 1), s.last
	go func() { locked <- s.Lock(false) }()
	s.awaitWish(asked + 1)
	_, err := p.Token(t.Context(), 0)
	wantKind(t, err, NeedsUnlock)
	_, _, err = p.AccountToken(t.Context())
	wantKind(t, err, NeedsUnlock)
	if s.Keep() != nil {
		t.Error("tokens are kept for the next daemon")
	}
	s.turn.Unlock()
	do(t, <-locked)
}

// awaitWish returns when the wish of that number has come.
func (s *Set) awaitWish(number uint64) {
	for last := uint64(0); last < number; runtime.Gosched() {
		s.wishes.Lock()
		last = s.last
		s.wishes.Unlock()
	}
}

func (s *Set) lastWish() (locked bool) {
	s.wishes.Lock()
	defer s.wishes.Unlock()
	return s.closed == s.last
}
