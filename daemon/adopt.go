package daemon

import (
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
	for name, token := range map[string]ipc.Text{"refresh": a.RefreshToken, "access": a.AccessToken, "account": a.AccountToken} {
		if !accounts.Sendable(token) {
			return ipc.Adopted{}, badRequest(name + " token holds what no header may")
		}
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
	p.kept.drop() // of the login before
	d.tokens.Changed()
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

func adopted(f store.Profile, e accounts.Endpoints) ipc.Adopted {
	return ipc.Adopted{
		Profile: f.Name, Store: f.Store, LoginURL: e.Login, TokenURL: e.Token, KeysURL: e.Keys, NodesURL: e.Nodes,
	}
}
