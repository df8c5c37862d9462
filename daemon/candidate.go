package daemon

import (
	"bytes"
	"context"
	"errors"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/ipc"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

// candidate is a login that has been proved and saved.
type candidate struct {
	facts   store.Profile
	item    store.Item
	grant   *refresher.Grant
	warning string
}

// wipe is for one that is not adopted.
func (c *candidate) wipe() {
	c.item.Wipe()
	if c.grant != nil {
		clear(c.grant.AccessToken)
	}
}

// newLogin proves a's refresh token where nothing else does, and saves it.
func (d *Daemon) newLogin(ctx context.Context, p *profile, a ipc.Adopt, facts store.Profile, e accounts.Endpoints, st store.Store, client *accounts.Client) (*candidate, *ipc.Problem) {
	origin, err := accounts.Origin(e.Token)
	if err != nil {
		return nil, badRequest(err.Error())
	}
	c := &candidate{facts: facts, item: store.Item{
		Origin:       origin,
		RefreshToken: store.NewSecret(bytes.Clone(a.RefreshToken)),
		ClientID:     a.ClientID,
		ClientSecret: store.NewSecret(bytes.Clone(a.ClientSecret)),
		AccountToken: store.NewSecret(bytes.Clone(a.AccountToken)),
	}}
	if times, err := accounts.TokenTimes(a.AccountToken); err == nil {
		c.item.AccountExpiry = times.Expiry
	}
	c.facts.ClientID, c.facts.Pending = a.ClientID, without(facts.Pending, append(a.Deleted, a.ClientID)...)
	// Without the moment nobody knows how much of the token's life has passed.
	if len(a.AccessToken) > 0 && !a.IssuedAt.IsZero() {
		c.grant = grantAt(bytes.Clone(a.AccessToken), a.IssuedAt, time.Now())
	} else if err := store.Probe(ctx, st); err != nil { // before a token is spent that may be rotated
		c.wipe()
		problem, _ := p.storeProblem(err)
		return nil, problem
	} else if problem := prove(ctx, p, c, client); problem != nil {
		c.wipe()
		return nil, problem
	}
	if problem := d.keep(ctx, p, c, st); problem != nil {
		c.wipe()
		return nil, problem
	}
	return c, nil
}

// keep saves c and records it. If it goes to another place than the login
// before, the record names both from before the save until the old copy is gone.
func (d *Daemon) keep(ctx context.Context, p *profile, c *candidate, st store.Store) *ipc.Problem {
	before, _ := d.records.Lookup(p.name)
	if store.Place(before.Store) == store.Place(st.Name()) {
		if err := st.Save(ctx, c.facts.ID, c.item); err != nil {
			problem, _ := p.storeProblem(err)
			return problem
		}
		if err := d.records.Put(c.facts); err != nil {
			d.putBack(ctx, p, st, c.facts.ID)
			return notRecorded(err)
		}
		return nil
	}
	noted := before
	if before.ID == "" {
		noted = c.facts
		noted.Store = "" // nothing is adopted yet
	}
	noted.Leftover = st.Name()
	if err := d.records.Put(noted); err != nil {
		return notRecorded(err)
	}
	if err := st.Save(ctx, c.facts.ID, c.item); err != nil {
		d.takeBack(ctx, p, st, c.facts.ID, before)
		problem, _ := p.storeProblem(err)
		return problem
	}
	c.facts.Leftover = before.Store
	if err := d.records.Put(c.facts); err != nil {
		d.takeBack(ctx, p, st, c.facts.ID, before)
		return notRecorded(err)
	}
	return nil
}

func notRecorded(err error) *ipc.Problem {
	return &ipc.Problem{Code: ipc.CodeInternal, Detail: "recording the profile: " + err.Error()}
}

// prove spends the refresh token once. Only the endpoint's explicit word
// refuses it: an endpoint that is down says nothing of the token.
func prove(ctx context.Context, p *profile, c *candidate, client *accounts.Client) *ipc.Problem {
	g, err := client.Refresh(ctx, c.item.RefreshToken.Reveal())
	var refused *accounts.Error
	switch {
	case err == nil:
		grant := grantOf(g)
		c.grant = &grant
		if g.RefreshToken != nil {
			c.item.RefreshToken.Wipe()
			c.item.RefreshToken = store.NewSecret(g.RefreshToken)
			c.facts.RefreshExpiry = g.RefreshExpiry
		}
		return nil
	case errors.As(err, &refused) && (refused.Class == accounts.Refused || refused.Class == accounts.InvalidGrant):
		return &ipc.Problem{
			Code: ipc.CodeNeedsLogin, Detail: p.name + ": the endpoint refused the refresh token: " + err.Error(),
			Hint: "bloq-agent login --profile " + p.name,
		}
	}
	c.warning = "the refresh token is kept, but not proved yet: " + err.Error()
	return nil
}

// takeBack deletes what keep has saved in another place than the login before.
// What cannot be deleted stays in the record.
func (d *Daemon) takeBack(ctx context.Context, p *profile, st store.Store, id string, before store.Profile) {
	err := st.Delete(ctx, id)
	switch {
	case err != nil:
	case before.ID == "":
		err = d.records.Remove(p.name)
	default:
		err = d.records.Put(before)
	}
	if err != nil {
		d.log.Error().Str("profile", p.name).Err(err).Msg("store keeps the login that was not adopted")
	}
}

// putBack saves the login before in the place that keep has used.
func (d *Daemon) putBack(ctx context.Context, p *profile, st store.Store, id string) {
	old := p.state.Load()
	if old.login == nil {
		return // nobody knows what it was
	}
	item := old.login.copyItem()
	defer item.Wipe()
	if err := st.Save(ctx, id, item); err != nil {
		d.log.Error().Str("profile", p.name).Err(err).Msg("store keeps the login that was not adopted")
	}
}
