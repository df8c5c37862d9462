package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/refresher"
	"bloq-agent/store"
	"bloq-agent/store/failpoint"
)

const (
	// rereadTimeout bounds the look at the store before a token is spent. What
	// is in memory will do where the store does not answer.
	rereadTimeout = 2 * time.Second
	// keepBack is how much life of an access token makes waiting for a store
	// better than spending a refresh token whose successor could not be kept.
	keepBack = 5 * time.Minute
)

// exchange is refresher.Config.Exchange: it spends the refresh token once. The
// steps are numbered as in ARCHITECTURE.md; the refresher does the rest of them.
func (l *login) exchange(ctx context.Context) (refresher.Grant, error) {
	defer l.waitsFor("the token endpoint")()
	l.reread(ctx)                                // 1
	if err := l.checkWritable(ctx); err != nil { // 2
		return refresher.Grant{}, err
	}
	failpoint.Hit("before the intent")
	l.intent.open() // 3
	failpoint.Hit("after the intent")
	g, err := l.spend(ctx) // 4
	if refused(err) && l.reread(ctx) {
		// It was the token of before somebody else changed the store. That one's
		// has not been tried.
		g, err = l.spend(ctx)
	}
	failpoint.Hit("after the reply")
	return l.outcome(g, err)
}

// reread takes over what another process has put into the store since, and
// reports whether it did: a login restored from a backup, say. A token that is
// not saved yet is newer than anything there.
func (l *login) reread(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, rereadTimeout)
	defer cancel()
	item, err := l.store.Load(ctx, l.id)
	if err != nil {
		return false
	}
	defer item.Wipe()
	l.mu.Lock()
	defer l.mu.Unlock()
	foreign := item.Origin != "" && item.Origin != l.item.Origin
	if l.unsaved || foreign || item.RefreshToken.IsZero() || item.RefreshToken.Equal(l.item.RefreshToken) {
		return false
	}
	origin := l.item.Origin
	l.item.Wipe()
	l.item = item.Clone()
	l.item.Origin = origin // a credential has none of its own
	l.refusals = 0
	l.tellEnd(item.RefreshToken)
	return true
}

// checkWritable keeps a refresh token from being spent whose successor could
// not be saved. That is worth a wait only where the endpoint rotates and while
// the access token lives: a person who has no token at all is no better off for
// a refresh token that stays good.
func (l *login) checkWritable(ctx context.Context) error {
	if !l.hasRotated() || l.left() < keepBack {
		return nil
	}
	item := l.copyItem()
	defer item.Wipe()
	if err := l.store.Save(ctx, l.id, item); err != nil {
		return fmt.Errorf("not refreshing while the store cannot be written: %w", err)
	}
	return nil
}

// spend calls the token endpoint. With kept client keys it buys another refresh
// token in time, or when the old one is dead, so that one login lasts for years.
func (l *login) spend(ctx context.Context) (accounts.Grant, error) {
	item := l.copyItem()
	defer item.Wipe()
	keys := !item.ClientSecret.IsZero()
	if keys && item.RefreshToken.IsZero() {
		return l.buy(ctx, item)
	}
	g, err := l.client.Refresh(ctx, item.RefreshToken.Reveal())
	if g.RefreshToken != nil {
		l.mu.Lock()
		l.rotates = true
		l.mu.Unlock()
	}
	dead := l.isDead(err)
	switch {
	case !keys:
	case dead:
		if bought, err := l.buy(ctx, item); err == nil {
			return bought, nil
		}
	case err == nil && l.wantsSuccessor(item.RefreshToken, time.Now().Add(g.Skew)):
		// Beside a good token: that it cannot be had must cost nothing.
		ctx, cancel := context.WithTimeout(ctx, buyTimeout)
		defer cancel()
		if bought, err := l.buy(ctx, item); err == nil {
			return bought, nil
		}
	}
	return g, err
}

const (
	buyTimeout = 8 * time.Second
	// buyGap is the least distance between two attempts to buy a successor: each
	// one that is bought lasts a year and cannot be revoked.
	buyGap = 6 * time.Hour
)

// buy spends the client keys. The one who asked goes on without, so the reason is
// told here.
func (l *login) buy(ctx context.Context, item store.Item) (accounts.Grant, error) {
	g, err := l.client.ClientCredentials(ctx, item.ClientID, item.ClientSecret.Reveal())
	if err != nil {
		l.notBought(err)
	}
	return g, err
}

// wantsSuccessor reports whether token ends soon, at most once every buyGap. The
// endpoint's clock decides: by a wrong one of ours every token would end soon.
func (l *login) wantsSuccessor(token store.Secret, theirs time.Time) bool {
	now := l.boottime()
	if !endsSoon(token, theirs) || l.asked != 0 && now-l.asked < buyGap {
		return false
	}
	l.asked = now
	return true
}

func (l *login) outcome(g accounts.Grant, err error) (refresher.Grant, error) {
	var e *accounts.Error
	if errors.As(err, &e) && (e.Unsent || e.Status >= 400 && e.Status < 500) {
		// Nothing was spent: it was not sent, or refused. A 5xx is no proof: a
		// gateway does not know what became of what it passed on.
		l.intent.done()
	}
	if err != nil {
		return refresher.Grant{RefreshToken: g.RefreshToken}, failure(err)
	}
	l.doubted = false
	l.skew.Store(int64(g.Skew))
	return grantOf(g), nil
}

// refused reports whether the endpoint may have called the refresh token dead.
func refused(err error) bool {
	var e *accounts.Error
	return errors.As(err, &e) && (e.Class == accounts.InvalidGrant || e.Class == accounts.Refused || e.Class == accounts.Unknown)
}

// successorAhead is how long before its end a refresh token gets a successor,
// where there are client keys; but never in the first three quarters of its life.
const successorAhead = 30 * 24 * time.Hour

func endsSoon(token store.Secret, now time.Time) bool {
	if token.IsZero() {
		return true
	}
	times, err := accounts.TokenTimes(token.Reveal())
	if err != nil || times.Expiry.IsZero() {
		return false
	}
	ahead := successorAhead
	if !times.IssuedAt.IsZero() {
		ahead = min(ahead, times.Expiry.Sub(times.IssuedAt)/4)
	}
	return times.Expiry.Sub(now) < ahead
}

// deadAfter bare refusals in a row count as a dead refresh token. A gateway's
// bad hour looks the same, and each token that is bought lasts a year and
// cannot be revoked.
const deadAfter = 5

// isDead judges the outcome of a refresh. Exchanges never overlap. After a crash
// in the middle of one, a refusal is what a spent token gets: no need to ask
// five times.
func (l *login) isDead(err error) bool {
	var e *accounts.Error
	switch {
	case err == nil:
		l.refusals = 0
		return false
	case !errors.As(err, &e) || !refused(err):
		return false // says nothing of the token
	case e.Class == accounts.InvalidGrant:
		return true
	}
	l.refusals++
	return l.refusals >= deadAfter || l.doubted
}
