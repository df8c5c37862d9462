package profile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

// adoptTimeout bounds what an adoption asks of a store and of the endpoint.
const adoptTimeout = time.Minute

// An Adoption is a login that a Profile is to take over. The Profile copies its
// secrets. (PROTOCOL.md section 2.6)
type Adoption struct {
	Environment string
	URLs        accounts.Endpoints // those that the person named
	Store       string             // "" for the one that the profile has, else the default
	ClientID    string

	RefreshToken, ClientSecret, AccountToken store.Secret
	// AccessToken came with the refresh token and saves an exchange. Its life began
	// at IssuedAt.
	AccessToken store.Secret
	IssuedAt    time.Time
	Deleted     []string // pending client keys that do not exist any more
}

// Adopted is what came of an Adoption.
type Adopted struct {
	Record    store.Profile
	Endpoints accounts.Endpoints
	// Pending are client keys of failed logins, for this one to delete.
	Pending          []string
	PreviousClientID string // if it was another one
	Expiry           time.Time
	Warning          string // what was adopted but does not work yet
}

// A proposal is what a profile would be after an Adoption.
type proposal struct {
	record    store.Profile
	endpoints accounts.Endpoints
	store     store.Store
}

// CheckAdoption reports whether Adopt of a could succeed now. Nothing changes,
// except that a copy of the login which is left in a third store is deleted.
func (s *Set) CheckAdoption(name string, a Adoption) (Adopted, error) {
	p := s.candidate(name)
	p.change.Lock()
	defer p.change.Unlock()
	next, err := p.propose(a)
	if err != nil {
		return Adopted{}, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, adoptTimeout)
	defer cancel()
	if err := canTake(ctx, next.store, next.record.ID); err != nil {
		return Adopted{}, p.storeHint(next.store, err)
	}
	return Adopted{Record: next.record, Endpoints: next.endpoints, Pending: litter(next.record, next.endpoints.Keys, s.clock.Now())}, nil
}

// NoteKey records the client ID of a, so that a login which fails halfway leaves a
// trace of the client keys that it made.
func (s *Set) NoteKey(name string, a Adoption) (Adopted, error) {
	p := s.candidate(name)
	p.change.Lock()
	defer p.change.Unlock()
	next, err := p.propose(a)
	if err != nil {
		return Adopted{}, err
	}
	r := p.record()
	note := func(r *store.Profile) {
		r.Pending = append(without(r.Pending, append(a.Deleted, a.ClientID)...), store.PendingKey{
			ClientID: a.ClientID, KeysURL: next.endpoints.Keys, Since: s.clock.Now().UTC().Truncate(time.Second),
		})
	}
	if r.ID == "" {
		r = next.record
		r.Store = "" // nothing is adopted yet
		note(&r)
		err = p.put(r)
	} else { // beside the refresher, which learns
		err = s.records.Amend(name, note)
		r = p.record()
	}
	if err != nil {
		return Adopted{}, p.internal("recording the client keys", err)
	}
	return Adopted{Record: r, Endpoints: next.endpoints}, nil
}

// Adopt takes the login over. The one before goes on if anything fails.
func (s *Set) Adopt(name string, a Adoption) (Adopted, error) {
	if err := a.check(s.clock.Now()); err != nil {
		return Adopted{}, err
	}
	p := s.candidate(name)
	s.adopts.Lock() // another profile may be about to get the same token
	defer s.adopts.Unlock()
	var out Adopted
	err := p.replace(func(old *state) (plan, error) {
		next, err := p.propose(a)
		if err != nil {
			return plan{}, err
		}
		if owner := ownerOf(a.RefreshToken.Reveal(), s, p); owner != "" {
			return plan{}, badRequest(fmt.Sprintf("profile %s has this refresh token already: two would spend it twice", owner))
		}
		before := p.record()
		c, err := p.adopt(old, next, a)
		if err != nil {
			return plan{}, err
		}
		p.ended = false
		out = c.adopted(before, next)
		return plan{
			endpoints: next.endpoints, login: c.login, from: c.from, announce: c.from.grant != nil,
			events: []Event{{Kind: LoginAdopted, Store: next.store.Name()}},
		}, nil
	})
	if err != nil {
		return Adopted{}, err
	}
	out.Warning = joined(out.Warning, p.dropSoon())
	return out, nil
}

// ownerOf is the name of another profile than p that runs on token, or "".
func ownerOf(token []byte, s *Set, p *Profile) string {
	for _, other := range s.Profiles() {
		if l := other.state.Load().login; l != nil && other != p && l.holds(token) {
			return other.name
		}
	}
	return ""
}

// propose works out what the profile would be after a. Precedence: the
// configuration, then a, then what the profile has, then production.
func (p *Profile) propose(a Adoption) (proposal, error) {
	if p.set.stopping() {
		return proposal{}, ErrStopping
	}
	if err := p.set.records.Dir().Check(); err != nil { // invariant 5, before a password is spent
		return proposal{}, p.internal("looking at the state directory", err)
	}
	if p.set.locked.Load() {
		return proposal{}, &Problem{Kind: NeedsUnlock, Phase: Locked, Detail: "locked", Hint: "bloq-agent unlock"}
	}
	r := p.record()
	if r.ID == "" {
		r.ID = store.NewID()
	}
	r.Pending, r.Ended = located(r.Pending, r.KeysURL), ""
	e, err := p.proposeURLs(&r, a)
	if err != nil {
		return proposal{}, err
	}
	if a.Store != "" {
		r.Store = a.Store
	} else if r.Store == "" {
		r.Store = p.set.settings.Load().Store
	}
	if r.Store == "credential" {
		return proposal{}, badRequest(p.name + ": its login is a systemd credential; put another in its place, or name a --store")
	}
	st, err := p.set.stores.Named(r.Store, p.name)
	if err != nil {
		return proposal{}, badRequest(err.Error())
	}
	return proposal{record: r, endpoints: e, store: st}, nil
}

// proposeURLs sets the URLs of r, and returns those that the configuration makes
// of them.
func (e entry) proposeURLs(r *store.Profile, a Adoption) (accounts.Endpoints, error) {
	recorded := accounts.Endpoints{Login: r.LoginURL, Token: r.TokenURL, Keys: r.KeysURL, Nodes: r.NodesURL}
	asked := a.URLs
	switch {
	case a.Environment == "" && asked.Login != "" && asked.Token != "" && asked.Keys != "" && asked.Nodes != "":
		r.Environment = "" // none of the presets
	case a.Environment != "" || recorded.Token == "":
		r.Environment = a.Environment
		if r.Environment == "" {
			r.Environment = "prod"
		}
		preset, err := accounts.Environment(r.Environment)
		if err != nil {
			return recorded, badRequest(err.Error())
		}
		recorded = preset
	}
	urls := recorded.Override(asked)
	if err := urls.Check(); err != nil {
		return urls, badRequest(err.Error())
	}
	if origin, err := accounts.Origin(urls.Token); err != nil || !sameOrigin(origin, r.TokenURL) {
		r.Rotates = false // it was another endpoint that did
	}
	r.LoginURL, r.TokenURL, r.KeysURL, r.NodesURL = urls.Login, urls.Token, urls.Keys, urls.Nodes
	effective := e.set.settings.Load().Endpoints(*r)
	// Secrets must go where the person said, or the person was not asked.
	conflict := effective.Override(asked) != effective ||
		a.Environment != "" && (effective.Login != urls.Login || effective.Token != urls.Token || effective.Keys != urls.Keys)
	if conflict {
		return urls, &Problem{
			Kind: Configuration, Detail: e.name + ": the configuration sets other URLs than the ones asked for",
			Hint: "bloq-agent config check",
		}
	}
	return effective, nil
}

func sameOrigin(origin, url string) bool {
	other, err := accounts.Origin(url)
	return err == nil && other == origin
}

// canTake checks that st can store a secret now, and would not overwrite what it
// cannot read: a login that finds out later has spent a password and made client
// keys for nothing.
func canTake(ctx context.Context, st store.Store, id string) error {
	if err := store.Probe(ctx, st); err != nil {
		return err
	}
	item, err := st.Load(ctx, id)
	item.Wipe()
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrOtherKey) {
		return nil // it gives way
	}
	return err
}

// check refuses tokens that can be seen to be useless.
func (a Adoption) check(now time.Time) error {
	if err := checkRefreshToken(a.RefreshToken.Reveal(), now); err != nil {
		return err
	}
	for name, token := range map[string]store.Secret{"refresh": a.RefreshToken, "access": a.AccessToken, "account": a.AccountToken} {
		if !accounts.Sendable(token.Reveal()) {
			return badRequest(name + " token holds what no header may")
		}
	}
	return nil
}

// checkRefreshToken refuses a token that can be seen to be useless.
func checkRefreshToken(token []byte, now time.Time) error {
	if len(token) == 0 {
		return badRequest("refresh token is missing")
	}
	times, err := accounts.TokenTimes(token)
	if err != nil {
		return badRequest("refresh token is malformed: it is not a JWT")
	}
	if e := times.Expiry; !e.IsZero() && !now.Before(e) {
		return badRequest("refresh token expired on " + e.UTC().Format(time.DateOnly))
	}
	return nil
}

// grantAt is a grant whose access token a login has just bought, with a request
// that was sent at the moment sent. The token's lifetime is its own and starts
// then, cut to the second as in accounts.Grant, whatever the endpoint's clock says.
func grantAt(accessToken []byte, sent, now time.Time) *refresher.Grant {
	if sent.After(now) {
		sent = now
	}
	sent = sent.Round(0).Truncate(time.Second)
	lifetime := accounts.Lifetime(accessToken, sent, accounts.AccessLifetime)
	return &refresher.Grant{AccessToken: accessToken, IssuedAt: sent, Expiry: sent.Add(lifetime)}
}

// pendingAge is how old pending client keys must be to be litter. Younger ones may
// belong to a login that is about to use them.
const pendingAge = 2 * time.Minute

// litter are the client keys that a login at keysURL may delete. Another endpoint
// does not know them: its 404 would strike them off the list.
func litter(r store.Profile, keysURL string, now time.Time) []string {
	var ids []string
	for _, k := range r.Pending {
		if k.KeysURL == keysURL && now.Sub(k.Since) > pendingAge && k.ClientID != r.ClientID {
			ids = append(ids, k.ClientID)
		}
	}
	return ids
}

// located returns a copy of keys in which those without a place belong to keysURL:
// that of their profile, before it changes.
func located(keys []store.PendingKey, keysURL string) []store.PendingKey {
	keys = slices.Clone(keys)
	for i := range keys {
		if keys[i].KeysURL == "" {
			keys[i].KeysURL = keysURL
		}
	}
	return keys
}

// without returns a copy of keys that lacks ids.
func without(keys []store.PendingKey, ids ...string) []store.PendingKey {
	return slices.DeleteFunc(slices.Clone(keys), func(k store.PendingKey) bool { return slices.Contains(ids, k.ClientID) })
}

func joined(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), "; ")
}
