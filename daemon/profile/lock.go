package profile

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"bloq-agent/store"
	"bloq-agent/store/turn"
)

// lockedFile in the state directory says that the agent is locked, for the daemon
// that comes next.
const lockedFile = "locked"

// A lock is whether the agent is locked as a whole. Of several wishes to lock and
// unlock the last one decides.
type lock struct {
	locked atomic.Bool // every request reads it

	wishes sync.Mutex // guards the next two, and locked against two writers
	last   uint64     // the number of the last wish
	closed uint64     // that of the last one to lock
	turn   turn.Mutex // held by one Lock or Unlock while it works
}

// wants records a wish. One to lock stops the handing out of tokens at once,
// whatever else is under way.
func (l *lock) wants(locked bool) (wish uint64) {
	l.wishes.Lock()
	defer l.wishes.Unlock()
	l.last++
	if locked {
		l.closed = l.last
		l.locked.Store(true)
	}
	return l.last
}

// unlock lets tokens out again, unless a wish to lock came after wish.
func (l *lock) unlock(wish uint64) bool {
	l.wishes.Lock()
	defer l.wishes.Unlock()
	if l.closed > wish {
		return false
	}
	l.locked.Store(false)
	return true
}

// lockedSince reports whether a wish to lock came after wish.
func (l *lock) lockedSince(wish uint64) bool {
	l.wishes.Lock()
	defer l.wishes.Unlock()
	return l.closed > wish
}

// Overtaken is the answer to a wish that a later one has undone.
func Overtaken(by string) error {
	return &Problem{Kind: Unavailable, Detail: "bloq-agent " + by + " came after it", Hint: "bloq-agent status"}
}

// Lock wipes the secrets of all profiles, and leaves a mark that a restart finds.
// A refresh token that only memory has stays there, unless force drops it: one in
// the memory store, or one that could not be saved. No token is handed out from
// the call on. (PROTOCOL.md section 2.8)
func (s *Set) Lock(force bool) error {
	s.wants(true)
	s.turn.Lock()
	defer s.turn.Unlock()
	if !s.locked.Load() {
		return Overtaken("unlock")
	}
	// The mark comes before the wiping: after a crash in between the next daemon is
	// locked.
	err := s.records.Dir().WriteFile(lockedFile, nil)
	s.each(func(p *Profile) {
		_ = p.replace(locking(p, force)) // fails only for a Set that is closed
	})
	s.stores.File.Key().Lock()
	s.stores.Keyring.Close() // a person gives consent to what unlocks again
	s.on(Event{Kind: LockedAll})
	if err != nil {
		return &Problem{Kind: Internal, Detail: "locked until the daemon restarts: " + err.Error(), Hint: restart(s, err, "bloq-agent lock")}
	}
	return nil
}

// locking is the recipe of Set.Lock.
func locking(p *Profile, force bool) recipe {
	return func(old *state) (plan, error) {
		record := p.record()
		todo := plan{endpoints: old.endpoints, problem: p.lockedProblem()}
		switch {
		case record.Store == "" && old.login == nil:
			todo.problem = old.problem
		case force && record.Store == "memory":
			return todo, p.set.stores.Memory.Delete(p.set.ctx, record.ID)
		case force:
		case old.unsavedErr() != nil || !old.unsaved.IsZero():
			todo.login, todo.from.unsaved, todo.again, todo.held = old.login, old.inherit().unsaved, true, true
		case record.Store == "memory":
			todo.held = old.held || old.phase == Serving
		}
		return todo, nil
	}
}

// saveHeld is the last try to save a refresh token that a lock left in memory.
func saveHeld(s *state) error {
	if s.unsaved.IsZero() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	return s.login.save(ctx, s.unsaved.Reveal())
}

// Unlock opens the key of the file store, if that takes a passphrase, and every
// profile that is not served. A keyring is unlocked by its own means; Unlock only
// asks it again. Unlock fails if a profile is still locked, or if none of those
// that were locked or waited is served.
func (s *Set) Unlock(passphrase []byte) error {
	wish := s.wants(false)
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.lockedSince(wish) {
		return Overtaken("lock")
	}
	if err := openKey(s, passphrase); err != nil {
		return err
	}
	s.stores.Keyring.AskAgain()
	if err := s.records.Dir().Remove(lockedFile); err != nil {
		return &Problem{Kind: Internal, Detail: "unlocking: " + err.Error(), Hint: restart(s, err, "bloq-agent unlock")}
	}
	if !s.unlock(wish) {
		// The later Lock waits for its turn, and writes its mark then.
		return Overtaken("lock")
	}
	s.on(Event{Kind: UnlockedAll})
	var mu sync.Mutex
	waited := map[string]*Problem{} // by profile: what a profile that was locked or waited still lacks
	s.each(func(p *Profile) {
		before := p.state.Load()
		if before.problem == nil {
			return
		}
		p.reopen()
		if k := before.problem.Kind; p.record().Store != "" && (k == NeedsUnlock || k == Unavailable) {
			mu.Lock()
			defer mu.Unlock()
			waited[p.name] = p.state.Load().problem
		}
	})
	if s.locked.Load() {
		return Overtaken("lock")
	}
	if len(waited) == 0 && s.stores.File.Key().Locked() {
		return errPassphraseMissing // what else the person may mean
	}
	return stillLocked(s.Profiles(), waited)
}

// errPassphraseMissing makes the command ask for it.
var errPassphraseMissing = &Problem{
	Kind: NeedsUnlock, Phase: Locked, Detail: "the key of the file store is under a passphrase", Hint: "bloq-agent unlock", Passphrase: true,
}

func openKey(s *Set, passphrase []byte) error {
	key := s.stores.File.Key()
	if len(passphrase) == 0 && key.Locked() && usesFile(s.records) {
		return errPassphraseMissing
	}
	if len(passphrase) == 0 {
		return nil
	}
	err := key.Unlock(passphrase)
	if errors.Is(err, store.ErrPassphrase) {
		return &Problem{Kind: NeedsUnlock, Phase: Locked, Detail: err.Error(), Hint: "bloq-agent unlock"}
	}
	if err != nil {
		return &Problem{Kind: Internal, Detail: err.Error()}
	}
	return nil
}

// usesFile reports whether any profile needs the key of the file store.
func usesFile(records *store.Profiles) bool {
	for _, r := range records.List() {
		if store.Place(r.Store) == "file" {
			return true
		}
	}
	return false
}

func stillLocked(all []*Profile, waited map[string]*Problem) error {
	var first *Problem
	served := false
	for _, p := range all {
		problem, did := waited[p.name]
		switch {
		case !did:
		case problem == nil:
			served = true
		case problem.Kind == NeedsUnlock:
			return problem
		case first == nil:
			first = problem
		}
	}
	if served {
		return nil
	}
	return asError(first)
}

// Protect puts the key of the file store under a passphrase.
func (s *Set) Protect(passphrase []byte) error {
	if err := s.stores.File.Key().Protect(passphrase); err != nil {
		return badRequest(err.Error())
	}
	return nil
}

// Locked reports whether the agent is locked.
func (s *Set) Locked() bool { return s.locked.Load() }
