package daemon

import (
	"fmt"
	"net/http"
	"strings"

	"bloq-agent/accounts"
	"bloq-agent/daemon/profile"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
	"bloq-agent/store"
)

// The routes that change a profile. None of them ends with its caller: once begun,
// a Ctrl-C in the command must not leave a profile half changed.

// handleAdopt takes over a login (PROTOCOL.md section 2.6).
func (a api) handleAdopt(w http.ResponseWriter, r *http.Request) {
	var body ipc.Adopt
	defer func() { // what is taken over is copied
		for _, secret := range []ipc.Text{body.RefreshToken, body.AccessToken, body.ClientSecret, body.AccountToken} {
			clear(secret)
		}
	}()
	if problem := decode(r, &body); problem != nil {
		fail(w, problem)
		return
	}
	tellQuestion(w, body.Check || body.Note)
	answer, problem := a.adopt(body)
	tellProfile(w, answer.Profile)
	if problem != nil {
		fail(w, problem)
		return
	}
	server.JSON(w, http.StatusOK, answer)
}

func (a api) adopt(body ipc.Adopt) (ipc.Adopted, *ipc.Problem) {
	set, problem := a.set()
	if problem != nil {
		return ipc.Adopted{}, problem
	}
	name := body.Profile
	if name == "" {
		name = "default"
		if all := set.Profiles(); len(all) == 1 {
			name = all[0].Name()
		}
	}
	if !ipc.ValidProfile(name) {
		return ipc.Adopted{}, badRequest(fmt.Sprintf("no profile can be called %q (a-z, 0-9, _ and -, at most 32)", name))
	}
	take := set.Adopt
	switch {
	case body.Check:
		take = set.CheckAdoption
	case body.Note:
		take = set.NoteKey
	}
	out, err := take(name, profile.Adoption{
		Environment: body.Environment, Store: body.Store, ClientID: body.ClientID,
		URLs:         accounts.Endpoints{Login: body.LoginURL, Token: body.TokenURL, Keys: body.KeysURL, Nodes: body.NodesURL},
		RefreshToken: store.NewSecret(body.RefreshToken), ClientSecret: store.NewSecret(body.ClientSecret), AccountToken: store.NewSecret(body.AccountToken),
		AccessToken: store.NewSecret(body.AccessToken), IssuedAt: body.IssuedAt, Deleted: body.Deleted,
	})
	if err != nil {
		return ipc.Adopted{Profile: name}, wire(err)
	}
	e := out.Endpoints
	return ipc.Adopted{
		Profile: name, Store: out.Record.Store, LoginURL: e.Login, TokenURL: e.Token, KeysURL: e.Keys, NodesURL: e.Nodes,
		PreviousClientID: out.PreviousClientID, Pending: out.Pending, ExpiresAt: out.Expiry, Warning: out.Warning,
	}, nil
}

// handleForget ends a login (PROTOCOL.md section 2.7).
func (a api) handleForget(w http.ResponseWriter, r *http.Request) {
	var body ipc.Named
	forProfile(a, w, r, &body, &body.Profile, func(p *profile.Profile) (any, *ipc.Problem) {
		return ipc.Named{Profile: p.Name()}, a.forget(p)
	})
}

func (a api) forget(p *profile.Profile) *ipc.Problem {
	err := p.Forget()
	files := tokenFiles(a).settle(p.Name())
	_ = a.keepTokens() // it has told
	return joinProblems("forgot profile "+p.Name(), wire(err), tokenFiles(a).unremoved("forgot profile "+p.Name(), files))
}

// handleLock locks the agent (PROTOCOL.md section 2.8).
func (a api) handleLock(w http.ResponseWriter, r *http.Request) {
	var body ipc.Lock
	if len(server.Body(r)) > 0 {
		if problem := decode(r, &body); problem != nil {
			fail(w, problem)
			return
		}
	}
	if problem := a.lock(body.Force); problem != nil {
		fail(w, problem)
		return
	}
	a.handleStatus(w, r)
}

func (a api) lock(force bool) *ipc.Problem {
	set, problem := a.state.get() // whatever the configuration says
	if problem != nil {
		return problem
	}
	if err := set.Lock(force); err != nil {
		return wire(err)
	}
	files := tokenFiles(a).settle("")
	a.server.CloseIdle()
	var held *ipc.Problem
	if err := a.keepTokens(); err != nil { // none are kept
		held = &ipc.Problem{Code: ipc.CodeInternal, Detail: "locked, but systemd still holds access tokens: " + err.Error()}
	}
	if !set.Locked() { // meanwhile
		return wire(profile.Overtaken("unlock"))
	}
	return joinProblems("locked", held, tokenFiles(a).unremoved("locked", files))
}

// joinProblems is one answer of two, each of which says what was done all the same.
func joinProblems(done string, first, second *ipc.Problem) *ipc.Problem {
	switch {
	case first == nil:
		return second
	case second != nil:
		first.Detail += "; " + strings.TrimPrefix(second.Detail, done+", ")
		first.Hint = second.Hint
	}
	return first
}

func (a api) handleUnlock(w http.ResponseWriter, r *http.Request) {
	a.withPassphrase(w, r, (*profile.Set).Unlock)
}

func (a api) handleProtect(w http.ResponseWriter, r *http.Request) {
	a.withPassphrase(w, r, (*profile.Set).Protect)
}

func (a api) withPassphrase(w http.ResponseWriter, r *http.Request, change func(*profile.Set, []byte) error) {
	var body ipc.Passphrase
	problem := decode(r, &body)
	defer clear(body.Passphrase)
	var set *profile.Set
	if problem == nil {
		set, problem = a.state.get()
	}
	if problem == nil {
		problem = wire(change(set, body.Passphrase))
	}
	if problem != nil {
		fail(w, problem)
		return
	}
	a.handleStatus(w, r)
}

// handleStore moves secrets to another store (PROTOCOL.md section 2.9).
func (a api) handleStore(w http.ResponseWriter, r *http.Request) {
	var body ipc.Move
	forProfile(a, w, r, &body, &body.Profile, func(p *profile.Profile) (any, *ipc.Problem) {
		problem := wire(p.Move(body.To))
		return a.describe(p.Status()), problem
	})
}

// forProfile answers a request whose body names a profile: it reads the body, in
// which *name is set then, finds the profile and has act do the rest.
func forProfile(a api, w http.ResponseWriter, r *http.Request, body any, name *string, act func(*profile.Profile) (answer any, problem *ipc.Problem)) {
	problem := decode(r, body)
	var p *profile.Profile
	if problem == nil {
		p, problem = a.asks(w, *name)
	}
	var answer any
	if problem == nil {
		answer, problem = act(p)
	}
	if problem != nil {
		fail(w, problem)
		return
	}
	server.JSON(w, http.StatusOK, answer)
}
