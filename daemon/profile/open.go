package profile

import (
	"context"
	"errors"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/store"
)

const (
	// openTimeout bounds one look at a store. It is the profile's own, not that of
	// the caller who happened to start the look (invariant 3).
	openTimeout = 10 * time.Second
	// lookGap is how long after a look in vain a caller starts no other, unless
	// what the look saw has changed.
	lookGap = 5 * time.Second
	// lookMost is the longest time between two looks that no caller asked for.
	lookMost = 30 * time.Second
)

// open is the recipe that reads the profile's secrets and serves with them.
func (p *Profile) open(old *state) (plan, error) {
	record, settings := p.record(), p.set.settings.Load()
	todo := plan{endpoints: settings.Endpoints(record), keep: true}
	switch {
	case !settings.Ready:
		todo.problem = opening(p.name)
	case (record.Store == "" || p.ended) && old.login == nil: // no login was adopted since
		todo.problem = p.needsLogin("needs login")
	case p.set.locked.Load():
		todo.problem, todo.keep = p.lockedProblem(), false
		todo.login, todo.from, todo.again, todo.held = old.login, old.inherit(), true, old.held
	case old.login != nil: // a lock left it in memory
		return p.goOn(old)
	default:
		l, err := load(p, record, todo.endpoints)
		if err != nil {
			todo.problem = p.storeProblem(err)
			break
		}
		todo.login = l
		if old.kept != nil {
			todo.from = inherited{grant: old.kept.grant(p.set.clock), same: true, kept: true}
		}
	}
	return todo, nil
}

// load reads the profile's item and checks that its secrets may be sent to the
// token URL.
func load(p *Profile, record store.Profile, e accounts.Endpoints) (*login, error) {
	ctx, cancel := context.WithTimeout(p.set.ctx, openTimeout)
	defer cancel()
	st, err := p.set.stores.Named(record.Store, p.name)
	if err != nil {
		return nil, err
	}
	client, err := accounts.New(e, p.set.settings.Load().Client)
	if err != nil {
		return nil, err
	}
	if err := p.set.records.Dir().Check(); err != nil { // what lies there may not be ours
		return nil, err
	}
	item, err := st.Load(ctx, record.ID)
	if err != nil {
		return nil, err
	}
	if err := belongs(&item, e.Token); err != nil {
		item.Wipe()
		return nil, err
	}
	p.nameClient(record, item.ClientID)
	return p.newLogin(client, st, record, item), nil
}

// nameClient has the record name the client keys of the login that is stored: a daemon
// that was killed between the two writes of an adoption has left those of the one
// before, and the ones in use among those that a login may delete.
func (e entry) nameClient(r store.Profile, id string) {
	if id == "" || id == r.ClientID {
		return
	}
	err := e.set.records.Amend(e.name, func(r *store.Profile) {
		r.ClientID, r.Pending = id, without(r.Pending, id)
	})
	if err != nil {
		e.set.on(Event{Kind: NotRecorded, Profile: e.name, Err: err})
	}
}

// reopen opens the profile and deletes copies of it that were left elsewhere.
func (p *Profile) reopen() {
	_ = p.replace(p.open) // fails only for a Set that is closed
	p.dropSoon()
}

// errNothingNew keeps replace from publishing the state that is there already.
var errNothingNew = errors.New("nothing new")

// lookAgain is reopen for a profile that waits. It publishes nothing if the store
// still has the same problem.
func lookAgain(p *Profile, s *state) {
	_ = p.replace(func(old *state) (plan, error) {
		if old != s {
			return plan{}, errNothingNew
		}
		todo, err := p.open(old)
		if err == nil && sameProblem(todo.problem, old.problem) {
			return plan{}, errNothingNew
		}
		return todo, err
	})
}

// look has the goroutine of s look at the store now, and returns when it has, or
// ctx ends, or there is another state.
func (s *state) look(ctx context.Context) {
	done := make(chan struct{})
	select {
	case s.looks <- done: // first, so that a caller without time starts a look for the next
	default:
		select {
		case s.looks <- done:
		case <-s.replaced:
			return
		case <-s.closed:
			return
		case <-ctx.Done():
			return
		}
	}
	select {
	case <-done:
	case <-s.replaced:
	case <-s.closed:
	case <-ctx.Done():
	}
}

// await looks at the store of a waiting profile until s is replaced.
func await(ctx context.Context, p *Profile, s *state) {
	ctx, cancel := context.WithCancel(ctx) // ends the watch
	defer cancel()
	record := p.record()
	w := &storeWatch{set: p.set, store: record.Store}
	last, seen := time.Now(), stamp(p.set.stores, record)
	for {
		caller, ok := w.next(ctx, s.looks, s.replaced)
		if !ok {
			return
		}
		now := stamp(p.set.stores, record)
		if caller == nil || now != seen || time.Since(last) >= lookGap {
			lookAgain(p, s)
			last, seen = time.Now(), now
		}
		if caller != nil {
			close(caller)
		}
	}
}

// stamp changes when the files of a login do. It is "" for a store without files.
func stamp(stores Stores, r store.Profile) string {
	st, err := stores.Named(r.Store, r.Name)
	if err != nil {
		return ""
	}
	if f, ok := st.(interface{ Stamp(id string) string }); ok {
		return f.Stamp(r.ID)
	}
	return ""
}

// A storeWatch says when a store that cannot be used is worth another look: when
// it may have changed, and from time to time, because a signal can be missed and
// only the keyring gives any.
type storeWatch struct {
	set     *Set
	store   string
	signals <-chan struct{} // nil while there is no bus
	looks   int
}

// next waits for such a moment, or for one of callers, which it returns. It
// reports false when ctx or ended has ended.
func (w *storeWatch) next(ctx context.Context, callers <-chan chan struct{}, ended <-chan struct{}) (caller chan struct{}, ok bool) {
	if w.signals == nil && w.store == "keyring" { // a bus that went away may be back
		w.signals = w.set.stores.Keyring.Watch(ctx)
	}
	pause := time.NewTimer(w.set.pause(w.looks))
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return nil, false
	case <-ended:
		return nil, false
	case caller = <-callers:
	case _, stands := <-w.signals:
		if !stands {
			w.signals = nil
		}
	case <-pause.C:
		w.looks++
	}
	select {
	case <-ctx.Done():
		return nil, false
	case <-ended: // at the same moment: what comes after would be halted for nothing
		return nil, false
	default:
		return caller, true
	}
}

// lookPause is how long a storeWatch waits for its nth look. The first, 0, is for
// what happened before the watch began.
func lookPause(n int) time.Duration {
	if n == 0 {
		return 0
	}
	return min(time.Second<<min(n-1, 10), lookMost)
}
