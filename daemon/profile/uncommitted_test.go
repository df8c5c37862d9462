package profile

import (
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/store"
)

// These tests are about a login that serves although its record could not be
// written: its refresh token was rotated, so there is no way back to the old one.

// uncommitted adopts such a login. mend lets records be written again.
func uncommitted(t *testing.T, at *place, e *endpoint, storeName string) (s *Set, p *Profile, mend func()) {
	t.Helper()
	s = at.open(t)
	a := e.add(t, storeName)
	spoil := func(map[string]any) { mend = block(t, filepath.Join(at.state(), "profiles.json")) }
	e.spoil.Store(&spoil)
	_, err := s.Adopt("work", a)
	do(t, err)
	return s, s.named("work"), mend
}

func TestALockOfALoginThatIsNotOnRecord(t *testing.T) {
	e, at := newEndpoint(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}}), newPlace(t)
	s, p, mend := uncommitted(t, at, e, "memory")
	do(t, p.replace(locking(p, false)))
	do(t, s.Lock(false))
	_, err := p.Token(t.Context(), 0)
	wantKind(t, err, NeedsUnlock)
	mend()
	do(t, s.Unlock(nil))
	at.until(t, "the login is recorded", func() bool {
		st := p.state.Load()
		return st.phase == Serving && st.unsavedErr() == nil && p.record().Store == "memory"
	})
	if n := e.api.Stats().Reuse; n != 0 {
		t.Errorf("%d spent refresh tokens were used", n)
	}
}

// A hookDisk is a real disk on which renames can be slow, or fail.
type hookDisk struct {
	store.Disk
	rename func(to string) error
}

func (h hookDisk) Rename(from, to string) error {
	if err := h.rename(to); err != nil {
		return err
	}
	return h.Disk.Rename(from, to)
}

func hook(t *testing.T, rename func(to string) error) {
	h := hookDisk{rename: rename}
	h.Disk = store.ReplaceDisk(nil)
	store.ReplaceDisk(h)
	t.Cleanup(func() { store.ReplaceDisk(h.Disk) })
}

// The record is written a moment after Adopt has returned. Until then the place of
// the new login is only a left-over there.
func TestALoginThatIsNotOnRecordIsNoLeftover(t *testing.T) {
	for _, before := range []string{"", "memory"} {
		t.Run("before: "+before, func(t *testing.T) {
			e, at := newEndpoint(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}}), newPlace(t)
			var mu sync.Mutex
			full, slow := false, false
			saving, adopted := make(chan struct{}), make(chan struct{})
			hook(t, func(to string) error {
				mu.Lock()
				defer mu.Unlock()
				switch {
				case full && strings.HasSuffix(to, "profiles.json"):
					full, slow = false, true
					return syscall.ENOSPC // once
				case slow && strings.HasSuffix(to, ".age"):
					slow = false
					close(saving)
					select {
					case <-adopted:
					case <-time.After(time.Second): // a daemon that waits for the save in Adopt
					}
				}
				return nil
			})
			records, err := store.OpenProfiles(at.state())
			do(t, err)
			s := Open(records, defaults(), at.stores(), nil, at.clock, func(ev Event) {
				if ev.Kind == LoginAdopted && ev.Store == "file" {
					<-saving
				}
				at.hear(ev)
			})
			t.Cleanup(s.Close)
			if before != "" {
				s.logIn(t, e, "work", before)
			}
			a := e.add(t, "file")
			spoil := func(map[string]any) { mu.Lock(); full = true; mu.Unlock() }
			e.spoil.Store(&spoil)
			_, err = s.Adopt("work", a)
			do(t, err)
			close(adopted)
			p := s.named("work")
			at.until(t, "the login is recorded", func() bool {
				return p.state.Load().unsavedErr() == nil && p.record().Store == "file"
			})
			s.Close()
			s = at.open(t)
			s.Start()
			p, ok := s.Lookup("work")
			if !ok {
				t.Fatal("after a restart there is no such profile")
			}
			at.until(t, "the profile opens", func() bool { return p.state.Load().phase != Opening })
			if st := p.state.Load(); st.phase != Serving {
				t.Errorf("after a restart: phase %d, %v", st.phase, st.problem)
			}
		})
	}
}

func TestAMoveRecordsALoginThatIsNotOnRecord(t *testing.T) {
	one := newEndpoint(t, sandbox.Config{})
	two := newEndpoint(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	at := newPlace(t)
	s := at.open(t)
	p := s.logIn(t, one, "work", "memory")
	a := two.add(t, "memory")
	gone := false
	spoil := func(map[string]any) { gone = true }
	two.spoil.Store(&spoil)
	do(t, p.replace(func(old *state) (plan, error) {
		next, err := p.propose(a)
		do(t, err)
		next.store = &spy{Store: next.store, saving: func() error {
			if gone {
				return &store.Unavailable{Store: "keyring", Reason: "gone"}
			}
			return nil
		}}
		c, err := p.adopt(old, next, a)
		if err != nil {
			return plan{}, err
		}
		return plan{endpoints: next.endpoints, login: c.login, from: c.from, announce: true}, nil
	}))
	at.until(t, "a save fails", func() bool { return p.state.Load().unsavedErr() != nil })
	do(t, p.Move("file")) // what the hint says
	if r := p.record(); r.TokenURL != two.urls.Token {
		t.Errorf("the record names %s, the login is of %s", r.TokenURL, two.urls.Token)
	}
	s.Close()
	s = at.open(t)
	s.Start()
	p = s.named("work")
	at.until(t, "the profile opens", func() bool { return p.state.Load().phase != Opening })
	if st := p.state.Load(); st.phase != Serving {
		t.Errorf("after a restart: phase %d: %v", st.phase, st.problem)
	}
}

// A note of client keys is made beside the refresher, which writes what it learns in
// the same record.
func TestANoteOfKeysForgetsNothing(t *testing.T) {
	e, at := newEndpoint(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}}), newPlace(t)
	var slow atomic.Bool
	writing := make(chan struct{})
	hook(t, func(to string) error {
		if strings.HasSuffix(to, "profiles.json") && slow.CompareAndSwap(true, false) {
			close(writing)
			time.Sleep(300 * time.Millisecond) // a slow disk
		}
		return nil
	})
	s := at.open(t)
	p := s.logIn(t, e, "work", "file")
	slow.Store(true)
	refreshed := make(chan error, 1)
	go func() { refreshed <- p.Refresh(t.Context()) }()
	<-writing
	_, err := s.NoteKey("work", Adoption{URLs: e.urls, ClientID: "x"})
	do(t, err)
	do(t, <-refreshed)
	if r := p.record(); !r.Rotates || len(r.Pending) != 1 {
		t.Errorf("rotates %v, pending %v", r.Rotates, r.Pending)
	}
}
