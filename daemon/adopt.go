package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

// handleAdopt takes over a login (PROTOCOL.md section 2.6). It is detached
// from its caller: once begun, a Ctrl-C in `bloq-agent login` must not leave
// the profile half-changed.
func (d *Daemon) handleAdopt(w http.ResponseWriter, r *http.Request) {
	var a ipc.Adopt
	defer func() { // what is taken over is copied
		for _, secret := range []ipc.Text{a.RefreshToken, a.AccessToken, a.ClientSecret, a.AccountToken} {
			clear(secret)
		}
	}()
	if err := decode(r, &a); err != nil {
		fail(w, badRequest(err.Error()))
		return
	}
	tellQuestion(w, a.Check || a.Note)
	answer, problem := d.adopt(context.WithoutCancel(r.Context()), a)
	tellProfile(w, answer.Profile)
	if problem != nil {
		fail(w, problem)
		return
	}
	server.JSON(w, http.StatusOK, answer)
}

func (d *Daemon) adopt(ctx context.Context, a ipc.Adopt) (ipc.Adopted, *ipc.Problem) {
	if a.Profile == "" {
		a.Profile = "default"
		if names := d.names(); len(names) == 1 {
			a.Profile = names[0]
		}
	}
	if !ipc.ValidProfile(a.Profile) {
		return ipc.Adopted{}, badRequest(fmt.Sprintf("no profile can be called %q (a-z, 0-9, _ and -, at most 32)", a.Profile))
	}
	p := d.profile(a.Profile)
	p.change.Lock()
	defer p.change.Unlock()
	if d.locked.Load() {
		return ipc.Adopted{}, &ipc.Problem{Code: ipc.CodeLocked, Detail: "locked", Hint: "bloq-agent unlock"}
	}
	facts, endpoints, problem := d.proposal(p, a)
	if problem != nil {
		return ipc.Adopted{}, problem
	}
	if facts.Store == "credential" {
		return ipc.Adopted{}, badRequest(p.name + ": its login is a systemd credential; put another in its place, or name a --store")
	}
	st, err := d.options.Stores.named(facts.Store, p.name)
	if err != nil {
		return ipc.Adopted{}, badRequest(err.Error())
	}
	if err := d.makeRoom(ctx, p, facts.Store); err != nil {
		problem, _ := p.storeProblem(err)
		return ipc.Adopted{}, problem
	}
	facts.Leftover = d.facts(p.name).Leftover
	switch {
	case a.Check:
		if err := takes(ctx, st, facts.ID); err != nil {
			problem, _ := p.storeProblem(err)
			var u *store.Unavailable
			if errors.As(err, &u) && st.Name() == "keyring" {
				problem.Hint = p.instead(u)
			}
			return ipc.Adopted{}, problem
		}
		answer := adopted(facts, endpoints)
		answer.Pending = litter(facts, endpoints.Keys, time.Now())
		return answer, nil
	case a.Note:
		return d.note(p, a, facts, endpoints)
	}
	if problem := checkRefreshToken(a.RefreshToken, &facts); problem != nil {
		return ipc.Adopted{}, problem
	}
	return d.takeOver(ctx, p, a, facts, endpoints, st)
}

// takes sees that st can keep a secret now, and that nothing is in the item's
// own place that it would not replace: a login that finds out later has spent a
// password and made client keys for nothing.
func takes(ctx context.Context, st store.Store, id string) error {
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

// instead is what to type where the keyring cannot take a login.
func (p *profile) instead(u *store.Unavailable) string {
	hint := "bloq-agent login --store file"
	if p.name != "default" {
		hint += " --profile " + p.name
	}
	if u.Locked {
		hint = "unlock the keyring in your desktop session, or: " + hint
	}
	return hint
}

// proposal is the profile's record and URLs as they would be after a.
// Precedence: the configuration, then a, then what the profile has, then prod.
func (d *Daemon) proposal(p *profile, a ipc.Adopt) (store.Profile, accounts.Endpoints, *ipc.Problem) {
	facts := d.facts(p.name)
	if facts.ID == "" {
		facts.ID = store.NewID()
	}
	facts.Pending = located(facts.Pending, facts.KeysURL)
	recorded := accounts.Endpoints{Login: facts.LoginURL, Token: facts.TokenURL, Keys: facts.KeysURL, Nodes: facts.NodesURL}
	asked := accounts.Endpoints{Login: a.LoginURL, Token: a.TokenURL, Keys: a.KeysURL, Nodes: a.NodesURL}
	switch {
	case a.Environment == "" && asked.Login != "" && asked.Token != "" && asked.Keys != "" && asked.Nodes != "":
		facts.Environment = "" // none of the presets
	case a.Environment != "" || recorded.Token == "":
		facts.Environment = a.Environment
		if facts.Environment == "" {
			facts.Environment = "prod"
		}
		preset, err := accounts.Environment(facts.Environment)
		if err != nil {
			return facts, recorded, badRequest(err.Error())
		}
		recorded = preset
	}
	e := recorded.Override(asked)
	if err := e.Check(); err != nil {
		return facts, e, badRequest(err.Error())
	}
	facts.LoginURL, facts.TokenURL, facts.KeysURL, facts.NodesURL = e.Login, e.Token, e.Keys, e.Nodes
	effective := d.config.Load().endpoints(facts)
	// Where secrets go must be where the person said, or they were not asked.
	conflict := effective.Override(asked) != effective ||
		a.Environment != "" && (effective.Login != e.Login || effective.Token != e.Token || effective.Keys != e.Keys)
	if conflict {
		return facts, e, &ipc.Problem{
			Code:   ipc.CodeConfiguration,
			Detail: p.name + ": the configuration sets other URLs than the ones asked for",
			Hint:   "bloq-agent config check",
		}
	}
	if a.Store != "" {
		facts.Store = a.Store
	} else if facts.Store == "" {
		facts.Store = d.newStore()
	}
	return facts, effective, nil
}

// pendingAge is how old pending client keys must be to be litter. Younger ones
// may be of a login that is just about to use them.
const pendingAge = 2 * time.Minute

// litter are the client keys that a login at keysURL may delete. Another
// endpoint knows nothing of them: its 404 would strike them off the list.
func litter(f store.Profile, keysURL string, now time.Time) []string {
	var ids []string
	for _, k := range f.Pending {
		if k.KeysURL == keysURL && now.Sub(k.Since) > pendingAge && k.ClientID != f.ClientID {
			ids = append(ids, k.ClientID)
		}
	}
	return ids
}

// note records client keys that a login has made, before anything can go
// wrong with them.
func (d *Daemon) note(p *profile, a ipc.Adopt, proposed store.Profile, e accounts.Endpoints) (ipc.Adopted, *ipc.Problem) {
	facts := d.facts(p.name)
	if facts.ID == "" {
		facts = proposed
		facts.Store = "" // nothing is adopted yet
	}
	facts.Pending = without(facts.Pending, append(a.Deleted, a.ClientID)...)
	facts.Pending = append(facts.Pending, store.PendingKey{
		ClientID: a.ClientID, KeysURL: e.Keys, Since: time.Now().UTC().Truncate(time.Second),
	})
	if err := d.records.Put(facts); err != nil {
		return ipc.Adopted{}, &ipc.Problem{Code: ipc.CodeInternal, Detail: err.Error()}
	}
	return adopted(facts, e), nil
}

// located is a copy of keys in which those that do not say where they were made
// belong to keysURL: that of their profile, before it changes.
func located(keys []store.PendingKey, keysURL string) []store.PendingKey {
	keys = slices.Clone(keys)
	for i := range keys {
		if keys[i].KeysURL == "" {
			keys[i].KeysURL = keysURL
		}
	}
	return keys
}

// without is a copy of keys that lacks ids.
func without(keys []store.PendingKey, ids ...string) []store.PendingKey {
	var rest []store.PendingKey
	for _, k := range keys {
		if !slices.Contains(ids, k.ClientID) {
			rest = append(rest, k)
		}
	}
	return rest
}

// checkRefreshToken refuses what can be seen to be useless, and records when
// the token ends.
func checkRefreshToken(token ipc.Text, facts *store.Profile) *ipc.Problem {
	if len(token) == 0 {
		return badRequest("refresh token is missing")
	}
	times, err := accounts.TokenTimes(token)
	if err != nil {
		return badRequest("refresh token is malformed: it is not a JWT")
	}
	if e := times.Expiry; !e.IsZero() && !time.Now().Before(e) {
		return badRequest("refresh token expired on " + e.UTC().Format(time.DateOnly))
	}
	facts.RefreshExpiry = times.Expiry
	return nil
}

// takeOver replaces what p runs on. The old login goes on if anything fails.
// The caller holds p.change.
func (d *Daemon) takeOver(ctx context.Context, p *profile, a ipc.Adopt, facts store.Profile, e accounts.Endpoints, st store.Store) (ipc.Adopted, *ipc.Problem) {
	if d.stopping.Load() {
		return ipc.Adopted{}, errStopping
	}
	d.adopting.Lock() // another profile may be about to get the same token
	defer d.adopting.Unlock()
	if owner := d.ownerOf(a.RefreshToken, p); owner != "" {
		return ipc.Adopted{}, badRequest(fmt.Sprintf("profile %s has this refresh token already: two would spend it twice", owner))
	}
	old := p.state.Load()
	client, err := accounts.New(e, d.clientOptions())
	if err != nil {
		return ipc.Adopted{}, badRequest(err.Error())
	}
	old.halt() // before the new token is tried: it may be the one in use
	c, problem := d.newLogin(ctx, p, a, facts, e, st, client)
	if problem != nil {
		d.resume(p, old)
		return ipc.Adopted{}, problem
	}
	d.intentOf(c.facts).done() // it was about the login before
	s := &state{facts: c.facts, endpoints: e}
	d.start(p, s, &login{client: client, store: st, id: c.facts.ID, item: c.item}, inherited{grant: c.grant})
	p.set(s)
	old.wipe()
	left := d.dropSoon(ctx, p)
	p.dropKept() // of the login before
	d.tokens.changed()
	if c.grant != nil {
		d.observe(p, s, nil, s.refresher.Snapshot())
	}
	d.log.Info().Str("profile", p.name).Str("store", st.Name()).Msg("adopted a login")
	answer := adopted(c.facts, e)
	answer.Warning = strings.Join(slices.DeleteFunc([]string{c.warning, left}, func(s string) bool { return s == "" }), "; ")
	if old.facts.ClientID != c.facts.ClientID {
		answer.PreviousClientID = old.facts.ClientID
	}
	if c.grant != nil {
		answer.ExpiresAt = c.grant.Expiry
	}
	return answer, nil
}

// ownerOf is the name of another profile than p that runs on token, or "".
func (d *Daemon) ownerOf(token ipc.Text, p *profile) string {
	for _, other := range d.all() {
		if l := other.state.Load().login; l != nil && other != p && l.holds(token) {
			return other.name
		}
	}
	return ""
}

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

func adopted(f store.Profile, e accounts.Endpoints) ipc.Adopted {
	return ipc.Adopted{
		Profile: f.Name, Store: f.Store, LoginURL: e.Login, TokenURL: e.Token, KeysURL: e.Keys, NodesURL: e.Nodes,
	}
}

// handleForget drops a profile and its secrets.
func (d *Daemon) handleForget(w http.ResponseWriter, r *http.Request) {
	var body ipc.Named
	if err := decode(r, &body); err != nil {
		fail(w, badRequest(err.Error()))
		return
	}
	p, problem := d.asks(w, body.Profile)
	if problem == nil {
		problem = d.forget(context.WithoutCancel(r.Context()), p)
	}
	if problem != nil {
		fail(w, problem)
		return
	}
	server.JSON(w, http.StatusOK, ipc.Named{Profile: p.name})
}

// forget deletes the secrets before the record: the other way round, a failure
// between the two would leave a year-long token that nothing knows of.
func (d *Daemon) forget(ctx context.Context, p *profile) *ipc.Problem {
	p.change.Lock()
	defer p.change.Unlock()
	if d.facts(p.name).ID == "" {
		return p.needsLogin("nothing to forget")
	}
	if err := d.dropLeftover(ctx, p); err != nil {
		problem, _ := p.storeProblem(err)
		return problem
	}
	old, facts := p.state.Load(), d.facts(p.name)
	old.halt()
	if facts.Store != "" {
		st, err := d.options.Stores.named(facts.Store, p.name)
		if err == nil {
			err = st.Delete(ctx, facts.ID)
		}
		if err != nil {
			d.resume(p, old)
			problem, _ := p.storeProblem(err)
			return problem
		}
	}
	if err := d.records.Remove(p.name); err != nil {
		d.resume(p, old)
		return &ipc.Problem{Code: ipc.CodeInternal, Detail: err.Error()}
	}
	d.intentOf(facts).done()
	old.wipe()
	p.set(&state{facts: store.Profile{Name: p.name}, problem: p.needsLogin("needs login")})
	d.sinks.settle()
	p.dropKept()
	d.tellKept(d.keepTokens())
	d.log.Info().Str("profile", p.name).Msg("forgot a login")
	d.hub.publish(ipc.Event{Time: time.Now(), Event: "forgotten", Profile: p.name})
	d.notifyStatus()
	return nil
}
