package profile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/refresher"
	"bloq-agent/store"
	"bloq-agent/store/failpoint"
)

// A login is the secrets of one profile while a refresher runs on them. Nothing
// else sends them anywhere.
type login struct {
	client *accounts.Client
	store  store.Store
	id     string
	mark   mark
	hooks  hooks
	commit func() error // writes the record of a login that was just adopted
	// pending is the adoption that is not on record yet, or nil.
	pending atomic.Pointer[candidate]

	left func() time.Duration // of the access token at hand

	// doing is what the refresher waits for; nil for nothing.
	doing atomic.Pointer[doing]
	seen  atomic.Pointer[seen]

	exchanging // of the exchange under way and those before it

	mu      sync.Mutex // guards the rest
	item    store.Item
	unsaved bool // item is newer than what the store has
}

// exchanging is the memory of the loop that calls exchange. Nothing else touches
// it while that runs; the next login of the same secrets takes it over.
type exchanging struct {
	rotated  bool          // the endpoint replaced a refresh token
	refusals int           // bare ones, in a row
	beside   bool          // the store has a token that is tried if ours is refused
	doubted  bool          // a crash may have lost the reply to the last exchange
	bought   time.Duration // when a successor was last asked for, by Boottime; 0 for never
}

// seen is what the exchanges up to now have shown, for Status and for the next.
type seen struct {
	skew     time.Duration // of the endpoint's clock against ours
	unusable error         // why its new refresh token cannot be used, or nil
}

func (l *login) last() seen {
	if s := l.seen.Load(); s != nil {
		return *s
	}
	return seen{}
}

// unusableNote is a sentence on a refresh token that cannot be used for reason.
func unusableNote(reason error) string {
	return "the endpoint sent a new refresh token that cannot be used (" + reason.Error() + "), so the one before is used again"
}

// hooks connect a login to its profile.
type hooks struct {
	check   func() error // invariant 5: the state directory is still ours
	clock   refresher.Clock
	rotates func() bool            // whether the endpoint was seen to rotate
	learned func(endpoint learned) // what an exchange showed
	tell    func(EventKind, error)
}

// learned is what an exchange showed of the endpoint and the login.
type learned struct {
	rotates bool      // the endpoint replaced a refresh token
	expiry  time.Time // of the refresh token; zero if unknown
}

// committed is the commit of a login that is on record.
func committed() error { return nil }

func (e entry) newLogin(client *accounts.Client, st store.Store, record store.Profile, item store.Item) *login {
	return &login{
		client: client, store: st, id: record.ID, item: item, mark: markOf(e.set.records.Dir(), record), commit: committed,
		hooks: hooks{
			check: e.set.records.Dir().Check, clock: e.set.clock,
			rotates: func() bool { return e.record().Rotates },
			learned: e.learn,
			tell:    func(kind EventKind, err error) { e.set.on(Event{Kind: kind, Profile: e.name, Err: err}) },
		},
	}
}

// learn keeps in the record what an exchange showed (invariant 4).
func (e entry) learn(l learned) {
	r := e.record()
	if r.ID == "" || r.RefreshExpiry.Equal(l.expiry) && (r.Rotates || !l.rotates) {
		return
	}
	err := e.set.records.Amend(e.name, func(r *store.Profile) {
		r.RefreshExpiry = l.expiry
		r.Rotates = r.Rotates || l.rotates
	})
	if err != nil {
		e.set.on(Event{Kind: NotRecorded, Profile: e.name, Err: err})
	}
}

// begin connects l to the refresher that is about to run on it.
func (l *login) begin(r *refresher.Refresher, unsaved, doubted bool) {
	l.left = func() time.Duration { return r.Snapshot().Left() }
	l.doubted = doubted
	l.mu.Lock()
	l.unsaved = unsaved
	l.mu.Unlock()
	l.learnExpiry(false)
}

// waitsFor records what l is waiting for. Call the result when the wait is over.
func (l *login) waitsFor(what string) (over func()) {
	l.doing.Store(&doing{what, time.Now()})
	return func() { l.doing.Store(nil) }
}

func (s *state) waitsFor() string {
	if s.phase != Serving {
		return ""
	}
	if d := s.login.doing.Load(); d != nil {
		return d.what
	}
	return ""
}

// noAnswer says whom a caller has waited for in vain.
func (s *state) noAnswer() string {
	return cmp.Or(s.waitsFor(), "the token endpoint") + " has not answered yet"
}

// A doing is what a refresher waits for.
type doing struct {
	what  string // "the state directory", "the token endpoint", "the store"
	since time.Time
}

// stuckAfter is how long a disk may take before the status says so.
const stuckAfter = 5 * time.Second

// stuck is what l has been waiting for unusually long, in words, or "".
func (l *login) stuck() string {
	d := l.doing.Load()
	if d == nil || time.Since(d.since) < stuckAfter {
		return ""
	}
	return fmt.Sprintf("its refresh has been waiting for %s for %s", d.what, time.Since(d.since).Round(time.Second))
}

// save is refresher.Config.Save. The new token takes the place of the old one in
// memory first: even if the store fails, the old one is never spent again.
func (l *login) save(ctx context.Context, refreshToken []byte) error {
	token := store.NewSecret(append([]byte(nil), refreshToken...))
	l.mu.Lock()
	if l.item.RefreshToken.Equal(token) { // it is tried again
		token.Wipe()
	} else {
		l.rotated = true
		l.item.RefreshToken.Wipe()
		l.item.RefreshToken = token
	}
	l.unsaved = true
	l.mu.Unlock()
	defer l.waitsFor("the store")()
	failpoint.Hit("before the save")
	err := l.write(ctx)
	if err == nil {
		err = l.commit()
	}
	if err == nil {
		l.commit = committed
		l.pending.Store(nil)
		failpoint.Hit("after the save")
	}
	l.learnExpiry(l.rotated) // the endpoint does, whatever the store says
	return err
}

// write saves l's item under the next serial (invariant 7). A save that fails uses
// its serial up all the same: the store may have taken the item before it failed,
// and that is older than whatever the next save brings.
func (l *login) write(ctx context.Context) error {
	l.mu.Lock()
	l.item.Serial++
	item := l.item.Clone()
	l.mu.Unlock()
	defer item.Wipe()
	if err := l.store.Save(ctx, l.id, item); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsaved = false
	return nil
}

// outlast makes l newer than other, which was stored in its place and must not be
// used. Until l is saved again only memory has it.
func (l *login) outlast(other *login) {
	theirs := other.copyItem()
	defer theirs.Wipe()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.item.Serial = max(l.item.Serial, theirs.Serial)
	l.unsaved = true
}

// onlyInMemory reports whether the store does not have l's item.
func (l *login) onlyInMemory() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsaved
}

// published clears the mark: what the exchange brought is saved and served.
func (l *login) published() {
	failpoint.Hit("after the publication")
	l.mark.clear()
}

// learnExpiry reports when the refresh token ends, as far as it says so.
func (l *login) learnExpiry(rotated bool) {
	item := l.copyItem()
	defer item.Wipe()
	times, err := accounts.TokenTimes(item.RefreshToken.Reveal())
	if err == nil || rotated {
		l.hooks.learned(learned{rotates: rotated, expiry: times.Expiry})
	}
}

// accountToken returns the Account Access Token of the last login while it lasts.
func (l *login) accountToken(now time.Time) (store.Secret, time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.item.AccountToken.IsZero() || !accounts.Sendable(l.item.AccountToken.Reveal()) || !now.Before(l.item.AccountExpiry) {
		return store.Secret{}, time.Time{}, false
	}
	return l.item.AccountToken.Clone(), l.item.AccountExpiry, true
}

// holds reports whether token is l's refresh token.
func (l *login) holds(token []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.item.RefreshToken.Equal(store.NewSecret(token))
}

// copyItem returns the caller's own.
func (l *login) copyItem() store.Item {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.item.Clone()
}

func (l *login) wipe() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.item.Wipe()
}

// belongs checks that item's secrets may be sent to tokenURL. A credential has no
// origin of its own: it belongs to the one that the configuration names.
func belongs(item *store.Item, tokenURL string) error {
	origin, err := accounts.Origin(tokenURL)
	if err != nil {
		return err
	}
	if item.Origin == "" {
		item.Origin = origin
	}
	if item.Origin != origin {
		return &originError{item.Origin, origin}
	}
	return nil
}

// An originError says that the configuration names another origin than the one
// that the secrets belong to. An edited file must not send a year-long token
// elsewhere.
type originError struct{ secrets, configured string }

func (e *originError) Error() string {
	return fmt.Sprintf("the login belongs to %s, but the configuration names %s", e.secrets, e.configured)
}

func grantOf(g accounts.Grant) refresher.Grant {
	return refresher.Grant{
		AccessToken: g.AccessToken, RefreshToken: g.RefreshToken,
		IssuedAt: g.IssuedAt, Expiry: g.Expiry,
	}
}

// failure translates the endpoint's classes into the refresher's. The two packages
// do not know each other.
func failure(err error) error {
	f := &refresher.Failure{Class: refresher.Transient, Err: err}
	var e *accounts.Error
	var moved *store.MovedError
	switch {
	case errors.As(err, &moved):
		f.Class = refresher.Configuration
		return f
	case !errors.As(err, &e):
		return f
	}
	f.RetryAfter = e.RetryAfter
	switch e.Class {
	case accounts.Refused:
		f.Class = refresher.Refused
	case accounts.InvalidGrant:
		f.Class = refresher.NeedsLogin
	case accounts.Configuration:
		f.Class = refresher.Configuration
	case accounts.Malformed:
		f.Class = refresher.Malformed
	case accounts.Unknown:
		f.Class = refresher.Unknown
	}
	return f
}
