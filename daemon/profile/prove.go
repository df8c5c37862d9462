package profile

import (
	"bytes"
	"context"
	"errors"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/store"
)

// A candidate is a login that is about to be adopted.
type candidate struct {
	login *login
	// before is what lies in its place in the store, and why that could not be read.
	before    store.Item
	beforeErr error
	record    store.Profile // what is written when the secrets are stored
	from      inherited
	warning   string
}

func (c *candidate) wipe() {
	c.login.wipe()
	if c.from.grant != nil {
		clear(c.from.grant.AccessToken)
	}
}

func (c *candidate) adopted(before store.Profile, next proposal) Adopted {
	out := Adopted{Record: c.record, Endpoints: next.endpoints, Warning: c.warning}
	if before.ClientID != c.record.ClientID {
		out.PreviousClientID = before.ClientID
	}
	if c.from.grant != nil {
		out.Expiry = c.from.grant.Expiry
	}
	return out
}

// adopt proves the login of a and stores it. If it fails, everything is as before.
// Once the endpoint has rotated the refresh token there is no way back: the login
// is adopted, and a store that fails is tried again as after every exchange.
func (p *Profile) adopt(old *state, next proposal, a Adoption) (*candidate, error) {
	ctx, cancel := context.WithTimeout(context.Background(), adoptTimeout)
	defer cancel()
	c, err := newCandidate(ctx, p, old, next, a)
	if err != nil {
		return nil, err
	}
	defer c.before.Wipe()
	before := p.record()
	err = p.prepareRecord(next)
	if err == nil {
		err = c.prove(ctx, a, p.words)
	}
	if err == nil {
		err = c.login.write(ctx)
	}
	if err == nil {
		err = c.login.commit()
	}
	switch {
	case err == nil:
		c.login.commit = committed
		c.login.pending.Store(nil)
		if c.from.grant != nil || c.login.rotated { // else a reply may be lost still
			c.login.mark.clear()
		}
		return c, nil
	case c.login.rotated:
		c.from.unsaved = c.login.copyItem().RefreshToken
		c.warning = joined(c.warning, "the refresh token is not saved yet: "+err.Error()+"; it is tried again until it is")
		return c, nil
	}
	takeBack(ctx, p, old, before, c, err)
	c.wipe()
	return nil, p.adoptionProblem(next.store, err)
}

func newCandidate(ctx context.Context, p *Profile, old *state, next proposal, a Adoption) (*candidate, error) {
	client, err := accounts.New(next.endpoints, p.set.settings.Load().Client)
	if err != nil {
		return nil, badRequest(err.Error())
	}
	origin, err := accounts.Origin(next.endpoints.Token)
	if err != nil {
		return nil, badRequest(err.Error())
	}
	before, beforeErr := next.store.Load(ctx, next.record.ID)
	item := store.Item{
		Origin:       origin,
		RefreshToken: a.RefreshToken.Clone(),
		ClientID:     a.ClientID,
		ClientSecret: a.ClientSecret.Clone(),
		AccountToken: a.AccountToken.Clone(),
		Serial:       firstSerial(old, before, p.set.clock.Now()),
	}
	if times, err := accounts.TokenTimes(a.AccountToken.Reveal()); err == nil {
		item.AccountExpiry = times.Expiry
	}
	record := next.record
	record.ClientID, record.Pending = a.ClientID, without(record.Pending, append(a.Deleted, a.ClientID)...)
	if times, err := accounts.TokenTimes(a.RefreshToken.Reveal()); err == nil {
		record.RefreshExpiry = times.Expiry
	}
	c := &candidate{login: p.newLogin(client, next.store, record, item), before: before, beforeErr: beforeErr, record: record}
	c.login.commit = func() error { return c.commit(p) }
	c.login.pending.Store(c)
	return c, nil
}

// firstSerial is above every serial of the login before (invariant 7), one that
// cannot be read now among them: no login is saved every millisecond.
func firstSerial(old *state, stored store.Item, now time.Time) uint64 {
	serial := max(stored.Serial, uint64(now.UnixMilli()))
	if old.login == nil {
		return serial
	}
	running := old.login.copyItem()
	defer running.Wipe()
	return max(serial, running.Serial)
}

// prepareRecord names the new place on the record before anything is stored there.
func (e entry) prepareRecord(next proposal) error {
	r := e.record()
	if store.Place(r.Store) == store.Place(next.store.Name()) {
		return nil
	}
	if r.ID == "" {
		r = next.record
		r.Store = "" // nothing is adopted yet
	}
	return e.noteCopy(r, next.store.Name())
}

// commit writes the record of a login that is stored.
func (c *candidate) commit(p *Profile) error {
	c.record = c.in(p.record(), c.login.store.Name())
	if err := p.put(c.record); err != nil {
		return &recordError{err}
	}
	return nil
}

// in is c's record if the login is in the store called name.
func (c *candidate) in(now store.Profile, name string) store.Profile {
	r := c.record
	r.Store, r.Leftovers, r.Rotates = name, moved(now, name).Leftovers, now.Rotates && r.Rotates || c.login.rotated
	return r
}

// A recordError says that the record of a login could not be written.
type recordError struct{ err error }

func (e *recordError) Error() string { return "recording the profile: " + e.err.Error() }
func (e *recordError) Unwrap() error { return e.err }

// prove gets the first access token. Without one from the login it spends the
// refresh token, as an exchange does: marked, and with whatever the endpoint made
// of it kept. Only the endpoint's explicit word refuses the login: an endpoint that
// is down says nothing of the token.
func (c *candidate) prove(ctx context.Context, a Adoption, w words) error {
	// Without IssuedAt nobody knows how much of the token's life has passed.
	if !a.AccessToken.IsZero() && !a.IssuedAt.IsZero() {
		c.from.grant = grantAt(bytes.Clone(a.AccessToken.Reveal()), a.IssuedAt, w.set.clock.Now())
		return nil
	}
	l := c.login
	if err := store.Probe(ctx, l.store); err != nil { // before a token is spent that may be rotated
		return err
	}
	l.mark.set(w.set.clock.Now())
	if err := l.hooks.check(); err != nil { // the disk may have taken its time
		return err
	}
	g, err := l.client.Refresh(ctx, l.item.RefreshToken.Reveal())
	if unspent(err) {
		l.mark.clear()
	}
	if g.RefreshToken != nil {
		l.rotated = true
		l.item.RefreshToken.Wipe()
		l.item.RefreshToken = store.NewSecret(g.RefreshToken)
		c.record.RefreshExpiry = g.RefreshExpiry
	}
	l.notice(g, err)
	var e *accounts.Error
	switch {
	case err == nil:
		if g.RefreshErr != nil {
			c.warning = unusableNote(g.RefreshErr)
		}
		grant := grantOf(g)
		grant.RefreshToken = nil // it is the login's
		c.from.grant = &grant
	case !l.rotated && errors.As(err, &e) && (e.Class == accounts.Refused || e.Class == accounts.InvalidGrant):
		return w.needsLogin("the endpoint refused the refresh token: " + err.Error())
	default:
		c.warning = "the refresh token is kept, but not proved yet: " + err.Error()
	}
	return nil
}

// takeBack undoes what the adoption of c, which failed, has stored.
func takeBack(ctx context.Context, p *Profile, old *state, before store.Profile, c *candidate, cause error) {
	l := c.login
	var err error
	switch {
	case store.Place(before.Store) != store.Place(l.store.Name()):
		p.undo(before, cause)
		return
	case old.login != nil:
		old.login.outlast(l)
		err = old.login.write(ctx)
	case errors.Is(c.beforeErr, store.ErrNotFound):
		err = l.store.Delete(ctx, l.id)
	case c.beforeErr == nil:
		c.before.Serial = max(c.before.Serial, l.item.Serial) + 1
		err = l.store.Save(ctx, l.id, c.before)
	}
	if err != nil {
		p.set.on(Event{Kind: NotUndone, Profile: p.name, Err: err})
	}
}
