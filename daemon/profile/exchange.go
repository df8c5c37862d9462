package profile

import (
	"cmp"
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
	// rereadTimeout bounds the look at the store before a token is spent. If the
	// store does not answer, the token in memory is used.
	rereadTimeout = 2 * time.Second
	// keepBack is the life of an access token that is worth more than a refresh
	// token whose successor could not be saved.
	keepBack = 5 * time.Minute
)

// exchange is refresher.Config.Exchange: it spends the refresh token once. The
// steps have the numbers of ARCHITECTURE.md; the refresher does the others.
func (l *login) exchange(ctx context.Context) (refresher.Grant, error) {
	defer l.waitsFor("the state directory")()
	if err := l.hooks.check(); err != nil { // invariant 5
		return refresher.Grant{}, failure(err)
	}
	l.waitsFor("the store")
	l.reread(ctx, false)                         // 1
	if err := l.checkWritable(ctx); err != nil { // 2
		return refresher.Grant{}, err
	}
	failpoint.Hit("before the intent")
	l.mark.set(l.hooks.clock.Now()) // 3
	failpoint.Hit("after the intent")
	if err := l.hooks.check(); err != nil { // the disk may have taken its time
		return refresher.Grant{}, failure(err)
	}
	l.waitsFor("the token endpoint")
	g, err := l.spend(ctx) // 4
	if refused(err) && l.reread(ctx, true) {
		g, err = l.spend(ctx)
	}
	failpoint.Hit("after the reply")
	return l.outcome(g, err)
}

// reread uses the refresh token that another process has stored since, if that is
// newer than ours (invariant 7), and reports whether it does. After the endpoint
// has refused ours, an item that cannot be compared is tried too: one without a
// serial, or one of the same serial.
func (l *login) reread(ctx context.Context, refused bool) bool {
	ctx, cancel := context.WithTimeout(ctx, rereadTimeout)
	defer cancel()
	item, err := l.store.Load(ctx, l.id)
	l.beside = false
	if err != nil {
		return false
	}
	defer item.Wipe()
	if !l.adoptNewer(item, refused) {
		return false
	}
	l.learnExpiry(false)
	return true
}

// adoptNewer makes item l's own if it is to be used instead.
func (l *login) adoptNewer(item store.Item, refused bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	foreign := item.Origin != "" && item.Origin != l.item.Origin
	if foreign || item.RefreshToken.IsZero() || item.RefreshToken.Equal(l.item.RefreshToken) {
		return false
	}
	// Another credential has no serial.
	newer := item.Serial > l.item.Serial || l.store.Name() == "credential" && item.Source != l.item.Source
	incomparable := item.Serial == 0 || item.Serial == l.item.Serial
	l.beside = !newer && incomparable && !l.unsaved
	if !newer && (!refused || !incomparable || l.unsaved) {
		return false
	}
	origin, serial := l.item.Origin, max(l.item.Serial, item.Serial)
	l.item.Wipe()
	l.item = item.Clone()
	l.item.Origin, l.item.Serial = origin, serial // a credential has neither
	l.unsaved, l.refusals = false, 0
	l.seen.Store(&seen{skew: l.last().skew})
	return true
}

// checkWritable keeps a refresh token from being spent if its successor could not
// be saved. That is worth a wait only where the endpoint rotates, and only while
// the access token lives: a person without any token gains nothing from a refresh
// token that stays good.
func (l *login) checkWritable(ctx context.Context) error {
	if !l.rotated && !l.hooks.rotates() || l.left() < keepBack {
		return nil
	}
	try := l.write
	if l.beside {
		try = func(ctx context.Context) error { return store.Probe(ctx, l.store) }
	}
	err := try(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("it has not answered in time")
	}
	if err != nil {
		return fmt.Errorf("not refreshing while the store cannot be written: %w", err)
	}
	return nil
}

// spend calls the token endpoint. With kept client keys it buys another refresh
// token before the old one ends, or when the endpoint refuses it, so that one
// login lasts for years.
func (l *login) spend(ctx context.Context) (accounts.Grant, error) {
	item := l.copyItem()
	defer item.Wipe()
	keys := !item.ClientSecret.IsZero()
	if keys && item.RefreshToken.IsZero() {
		return l.buy(ctx, item)
	}
	g, err := l.client.Refresh(ctx, item.RefreshToken.Reveal())
	dead := l.isDead(err)
	switch {
	case !keys:
	case dead:
		if bought, err := l.buy(ctx, item); err == nil || bought.RefreshToken != nil {
			return withToken(bought, g), err
		}
	case err == nil && l.wantsSuccessor(item.RefreshToken, l.hooks.clock.Now().Add(g.Skew)):
		// Beside a good token: a failure must cost nothing.
		ctx, cancel := context.WithTimeout(ctx, buyTimeout)
		defer cancel()
		if bought, err := l.buy(ctx, item); err == nil {
			return withToken(bought, g), nil
		}
	}
	return g, err
}

// withToken is the grant bought, with the refresh token of g if it brought none of
// its own.
func withToken(bought, g accounts.Grant) accounts.Grant {
	if bought.RefreshToken == nil {
		bought.RefreshToken, bought.RefreshErr = g.RefreshToken, cmp.Or(g.RefreshErr, bought.RefreshErr)
	}
	return bought
}

const (
	buyTimeout = 8 * time.Second
	// buyGap is the least time between two attempts to buy a successor. Each one
	// lasts a year and cannot be revoked.
	buyGap = 6 * time.Hour
)

// buy spends the client keys. It reports a failure here, because its caller goes
// on without.
func (l *login) buy(ctx context.Context, item store.Item) (accounts.Grant, error) {
	g, err := l.client.ClientCredentials(ctx, item.ClientID, item.ClientSecret.Reveal())
	if reason := cmp.Or(err, g.RefreshErr); reason != nil {
		l.hooks.tell(NotBought, reason)
	}
	return g, err
}

// wantsSuccessor reports whether token ends soon, at most once every buyGap. It
// goes by the endpoint's clock: by a wrong one of ours every token would end soon.
func (l *login) wantsSuccessor(token store.Secret, theirs time.Time) bool {
	now := l.hooks.clock.Boottime()
	if !endsSoon(token, theirs) || l.bought != 0 && now-l.bought < buyGap {
		return false
	}
	l.bought = now
	return true
}

func (l *login) outcome(g accounts.Grant, err error) (refresher.Grant, error) {
	if unspent(err) {
		l.mark.clear()
	}
	l.notice(g, err)
	if err != nil {
		return refresher.Grant{RefreshToken: g.RefreshToken}, failure(l.explain(err))
	}
	l.doubted = false
	return grantOf(g), nil
}

// notice keeps what an exchange has shown. A refresh token that cannot be used may
// have replaced ours all the same: only an answer that takes ours, or brings
// another, shows that it has not.
func (l *login) notice(g accounts.Grant, err error) {
	now := l.last()
	if err == nil {
		now.skew = g.Skew
	}
	switch {
	case g.RefreshToken != nil:
		now.unusable = nil
	case g.RefreshErr != nil:
		if now.unusable == nil {
			l.hooks.tell(Unusable, g.RefreshErr)
		}
		now.unusable = g.RefreshErr
	case err == nil:
		now.unusable = nil
	}
	l.seen.Store(&now)
}

// explain says why the endpoint refuses our refresh token, if that is known.
func (l *login) explain(err error) error {
	if reason := l.last().unusable; reason != nil && refused(err) {
		return fmt.Errorf("%w; the endpoint had sent a new refresh token that cannot be used: %w", err, reason)
	}
	return err
}

// unspent reports whether err proves that the endpoint did not spend the refresh
// token: the request was not sent, or it was refused. A 5xx proves nothing,
// because a gateway does not know what became of what it passed on.
func unspent(err error) bool {
	var e *accounts.Error
	return errors.As(err, &e) && (e.Unsent || e.Status >= 400 && e.Status < 500)
}

// refused reports whether the endpoint may have called the refresh token dead.
func refused(err error) bool {
	var e *accounts.Error
	return errors.As(err, &e) && (e.Class == accounts.InvalidGrant || e.Class == accounts.Refused || e.Class == accounts.Unknown)
}

// successorAhead is how long before its end a refresh token gets a successor, where
// there are client keys. It is never in the first three quarters of its life.
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

// deadAfter bare refusals in a row are worth the client keys. A gateway's bad hour
// looks the same, and each token that is bought lasts a year.
const deadAfter = 5

// isDead reports whether the outcome of a refresh calls the refresh token dead.
// After a crash in the middle of an exchange one refusal does, and after a new token
// that cannot be used, because a spent token gets just that.
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
	return l.refusals >= deadAfter || l.doubted || l.last().unusable != nil
}
