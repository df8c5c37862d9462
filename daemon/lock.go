package daemon

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"bloq-agent/ipc"
	"bloq-agent/store"
)

// lockedFile in the state directory says that the agent is locked; a restart
// stays so.
const lockedFile = "locked"

func (d *Daemon) lockedPath() string { return filepath.Join(d.options.StateDir, lockedFile) }

func (d *Daemon) wasLocked() bool {
	_, err := os.Lstat(d.lockedPath())
	return err == nil
}

func (d *Daemon) handleLock(w http.ResponseWriter, r *http.Request) {
	if problem := d.lock(); problem != nil {
		fail(w, problem)
		return
	}
	d.handleStatus(w, r)
}

// lock wipes every secret from memory, unless one of them is nowhere else: then
// nothing changes.
func (d *Daemon) lock() *ipc.Problem {
	d.locking.Lock()
	defer d.locking.Unlock()
	if problem := d.haltForLock(); problem != nil {
		return problem
	}
	// Who adopted a profile meanwhile that was not known before.
	d.eachProfile(func(p *profile) {
		if s := p.state.Load(); s.login != nil {
			s.halt()
			d.closeLocked(p)
		}
	})
	files := d.settleSinks("")
	d.options.Stores.File.Key().Lock()
	d.options.Stores.Memory.Wipe()
	if d.server != nil {
		d.server.CloseIdle()
	}
	for _, p := range d.all() {
		p.kept.drop()
	}
	err := d.keepTokens() // none
	scrub()
	d.log.Info().Msg("locked")
	d.hub.publish(ipc.Event{Time: time.Now().UTC(), Event: "locked"})
	problem := d.unremoved("locked", files)
	if err != nil {
		held := &ipc.Problem{Code: ipc.CodeInternal, Detail: "locked, but systemd still holds access tokens: " + err.Error()}
		if problem != nil {
			held.Detail, held.Hint = held.Detail+"; "+strings.TrimPrefix(problem.Detail, "locked, "), problem.Hint
		}
		return held
	}
	return problem
}

// haltForLock holds all profiles while it looks whether one would be lost. The
// only other holder of more than one is itself, and d.locking keeps it alone.
func (d *Daemon) haltForLock() *ipc.Problem {
	all := d.all()
	var halted sync.WaitGroup
	for _, p := range all {
		p.change.Lock()
		defer p.change.Unlock()
		halted.Go(func() { p.state.Load().halt() }) // it tries once more to save
	}
	halted.Wait()
	problem := d.lossOf(all)
	if problem == nil {
		// The mark comes before the wiping: a crash in the middle must come back
		// locked.
		if err := store.WriteFile(d.lockedPath(), nil); err != nil {
			problem = &ipc.Problem{Code: ipc.CodeInternal, Detail: "locking: " + err.Error()}
		}
	}
	if problem != nil {
		for _, p := range all {
			d.resume(p, p.state.Load())
		}
		return problem
	}
	d.locked.Store(true)
	for _, p := range all {
		d.closeLocked(p)
	}
	return nil
}

// closeLocked ends what ran in p, which has been stopped. The caller holds
// p.change.
func (d *Daemon) closeLocked(p *profile) {
	p.state.Load().wipe()
	d.open(d.ctx, p)
}

// lossOf is why the secrets of all must not be wiped, if there is a reason.
func (d *Daemon) lossOf(all []*profile) *ipc.Problem {
	for _, p := range all {
		s := p.state.Load()
		if err := s.unsaved(); err != nil {
			return &ipc.Problem{
				Code:   ipc.CodeUnavailable,
				Detail: p.name + ": locking would lose the login: its newest refresh token is not saved: " + err.Error(),
				Hint:   s.rescue(),
			}
		}
	}
	return nil
}

// tellLosses is for a daemon that is about to end: profiles have been stopped.
func (d *Daemon) tellLosses() {
	for _, p := range d.all() {
		s := p.state.Load()
		err := s.unsaved()
		if err == nil {
			continue
		}
		e := d.log.Error().Str("profile", p.name).Err(err)
		if c := s.rescue(); c != "" {
			e = e.Str("would_have_saved_it", c)
		}
		e.Msg("stopping with a refresh token that could not be saved: the login will be lost")
	}
}

// unsaved is why the only good refresh token of s is in memory alone, or nil.
func (s *state) unsaved() error {
	if s.login == nil {
		return nil
	}
	return s.refresher.Snapshot().SaveErr
}

// rescue is a command that saves what s holds, if there is one.
func (s *state) rescue() string {
	if store.Place(s.login.store.Name()) == "file" {
		return "" // whatever keeps it from being written is not ours to mend
	}
	return "bloq-agent store move --to file --profile " + s.facts.Name
}

func (d *Daemon) handleUnlock(w http.ResponseWriter, r *http.Request) {
	var body ipc.Passphrase
	if err := decode(r, &body); err != nil {
		fail(w, badRequest(err.Error()))
		return
	}
	defer clear(body.Passphrase)
	if problem := d.unlock(r.Context(), body.Passphrase); problem != nil {
		fail(w, problem)
		return
	}
	d.handleStatus(w, r)
}

// unlock opens the key of the file store, if that takes a passphrase, and every
// profile that is not served. A keyring is unlocked by its own means; here it
// is only asked again. It fails if one is still locked, or if none is served of
// those that were not; whoever needs something else is no matter of unlock.
func (d *Daemon) unlock(ctx context.Context, passphrase []byte) *ipc.Problem {
	key := d.options.Stores.File.Key()
	if len(passphrase) == 0 && key.Locked() && d.usesFile() {
		return errPassphraseMissing
	}
	if len(passphrase) > 0 {
		err := key.Unlock(passphrase)
		if errors.Is(err, store.ErrPassphrase) {
			return &ipc.Problem{Code: ipc.CodeLocked, Detail: err.Error(), Hint: "bloq-agent unlock"}
		}
		if err != nil {
			return &ipc.Problem{Code: ipc.CodeInternal, Detail: err.Error()}
		}
	}
	if err := os.Remove(d.lockedPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return &ipc.Problem{Code: ipc.CodeInternal, Detail: "unlocking: " + err.Error()}
	}
	d.locked.Store(false)
	d.log.Info().Msg("unlocked")
	var mu sync.Mutex
	waited := map[string]*ipc.Problem{} // :: profile that was locked or waited for its store → what it still lacks
	d.eachProfile(func(p *profile) {
		before := p.state.Load()
		if before.problem == nil {
			return
		}
		d.open(context.WithoutCancel(ctx), p)
		if c := before.problem.Code; before.facts.Store != "" && (c == ipc.CodeLocked || c == ipc.CodeUnavailable) {
			mu.Lock()
			defer mu.Unlock()
			waited[p.name] = p.state.Load().problem
		}
	})
	if len(waited) == 0 && key.Locked() {
		return errPassphraseMissing // what else may be meant
	}
	return d.stillLocked(waited)
}

// errPassphraseMissing makes the command ask for it.
var errPassphraseMissing = &ipc.Problem{
	Code: ipc.CodeLocked, Detail: "the key of the file store is under a passphrase", Hint: "bloq-agent unlock", Passphrase: true,
}

func (d *Daemon) stillLocked(waited map[string]*ipc.Problem) *ipc.Problem {
	var first *ipc.Problem
	served := false
	for _, name := range d.names() {
		problem, did := waited[name]
		switch {
		case !did:
		case problem == nil:
			served = true
		case problem.Code == ipc.CodeLocked:
			return problem
		case first == nil:
			first = problem
		}
	}
	if served {
		return nil
	}
	return first
}

// usesFile reports whether any profile needs the file store's key.
func (d *Daemon) usesFile() bool {
	for _, f := range d.records.List() {
		if f.Store == "file" || f.Store == "credential" {
			return true
		}
	}
	return false
}

func (d *Daemon) handleProtect(w http.ResponseWriter, r *http.Request) {
	var body ipc.Passphrase
	if err := decode(r, &body); err != nil {
		fail(w, badRequest(err.Error()))
		return
	}
	defer clear(body.Passphrase)
	if err := d.options.Stores.File.Key().Protect(body.Passphrase); err != nil {
		fail(w, badRequest(err.Error()))
		return
	}
	d.log.Info().Msg("put the key of the file store under a passphrase")
	d.handleStatus(w, r)
}

// recordCredentials makes a profile of each login that systemd passes and that
// has no record yet: on a headless machine nobody types a command.
func (d *Daemon) recordCredentials() error {
	for _, name := range store.CredentialProfiles(d.options.Stores.Credentials) {
		if _, known := d.records.Lookup(name); known {
			continue
		}
		facts, _, problem := d.proposal(d.profile(name), ipc.Adopt{Profile: name, Store: "credential"})
		if problem != nil {
			return errors.New(problem.Detail)
		}
		if err := d.records.Put(facts); err != nil {
			return err
		}
		d.mu.Lock()
		delete(d.profiles, name) // made anew, with its record
		d.mu.Unlock()
	}
	return nil
}
