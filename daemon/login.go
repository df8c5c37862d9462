package daemon

import (
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

// A login is the secrets of one profile while a refresher runs on them, and
// the only place that sends them anywhere.
type login struct {
	client *accounts.Client
	store  store.Store
	id     string

	intent intent
	ended  func(time.Time)      // told when a rotated refresh token ends
	left   func() time.Duration // of the access token at hand

	boottime  func() time.Duration
	notBought func(error) // told why there is no new refresh token

	// doing is what its refresher waits for now: "the token endpoint", "the
	// store", or "".
	doing    atomic.Value  // string
	refusals int           // in a row; exchange's alone
	doubted  bool          // a crash may have lost a reply; exchange's alone
	asked    time.Duration // when a successor was last asked for, by boottime; the same
	skew     atomic.Int64  // of the endpoint's clock against ours, in nanoseconds

	mu      sync.Mutex // guards the rest
	item    store.Item
	unsaved bool // item is newer than the store's
	rotates bool // the endpoint has replaced a refresh token
}

// waitsFor notes what until the function that it returns is called.
func (l *login) waitsFor(what string) func() {
	l.doing.Store(what)
	return func() { l.doing.Store("") }
}

// follow is for the refresher that is about to run on l.
func (l *login) follow(r *refresher.Refresher, from inherited) {
	l.left = func() time.Duration { return r.Snapshot().Left() }
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsaved, l.rotates = from.unsaved != nil, from.rotates
}

func (l *login) hasRotated() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rotates
}

// save is refresher.Config.Save. The new token takes the old one's place in
// memory first: even if the store fails, the old one is never spent again.
func (l *login) save(ctx context.Context, refreshToken []byte) error {
	token := store.NewSecret(append([]byte(nil), refreshToken...))
	l.mu.Lock()
	if !l.item.RefreshToken.Equal(token) {
		l.item.RefreshToken.Wipe()
		l.item.RefreshToken = token
	}
	l.unsaved = true
	item := l.item.Clone()
	l.mu.Unlock()
	defer item.Wipe()
	defer l.waitsFor("the store")()
	failpoint.Hit("before the save")
	if err := l.store.Save(ctx, l.id, item); err != nil {
		return err
	}
	failpoint.Hit("after the save")
	l.mu.Lock()
	l.unsaved = false
	l.mu.Unlock()
	l.tellEnd(token)
	return nil
}

// tellEnd tells when a refresh token says that it ends.
func (l *login) tellEnd(token store.Secret) {
	if times, err := accounts.TokenTimes(token.Reveal()); err == nil {
		l.ended(times.Expiry)
	}
}

// accountToken is the Account Access Token of the last login while it lasts.
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

// copyItem is for those who replace the login.
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

func grantOf(g accounts.Grant) refresher.Grant {
	return refresher.Grant{
		AccessToken: g.AccessToken, RefreshToken: g.RefreshToken,
		IssuedAt: g.IssuedAt, Expiry: g.Expiry,
	}
}

// grantAt is a grant whose access token somebody else of ours (login) has just
// bought, with a request sent at sent. Its lifetime is the token's own and
// starts then, cut to the second as in accounts.Grant; the endpoint's clock
// changes nothing.
func grantAt(accessToken []byte, sent, now time.Time) *refresher.Grant {
	if sent.After(now) {
		sent = now
	}
	sent = sent.Round(0).Truncate(time.Second)
	lifetime := accounts.Lifetime(accessToken, sent, accounts.AccessLifetime)
	return &refresher.Grant{AccessToken: accessToken, IssuedAt: sent, Expiry: sent.Add(lifetime)}
}

// failure translates the endpoint's classes into the refresher's. The two
// packages do not know each other.
func failure(err error) error {
	f := &refresher.Failure{Class: refresher.Transient, Err: err}
	var e *accounts.Error
	if !errors.As(err, &e) {
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

// load reads a profile's item and sees that it may be sent to tokenURL.
func load(ctx context.Context, s store.Store, id, tokenURL string) (store.Item, error) {
	item, err := s.Load(ctx, id)
	if err != nil {
		return store.Item{}, err
	}
	if err := belongs(&item, tokenURL); err != nil {
		item.Wipe()
		return store.Item{}, err
	}
	return item, nil
}

// belongs sees that item's secrets may be sent to tokenURL. A credential has
// no origin of its own: it belongs to what the configuration names.
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
