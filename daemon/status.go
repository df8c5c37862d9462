package daemon

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"bloq-agent/daemon/profile"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

func (a api) handleStatus(w http.ResponseWriter, r *http.Request) {
	defer a.config.look() // which no answer waits for
	s := ipc.Status{
		Version: a.options.Version, PID: os.Getpid(), StartedAt: a.started.UTC(),
		Config: a.config.status(a.options.ConfigPath), TokensKept: a.tokens.State(), Profiles: []ipc.ProfileStatus{}, Hardening: a.hardening(),
		Unremoved: tokenFiles(a).dropped(),
	}
	set, problem := a.state.get()
	if problem == nil && !slices.ContainsFunc(set.Profiles(), serves) {
		problem = wire(set.Misplaced()) // which hides logins
		if problem != nil && problem.Code == ipc.CodeUnavailable {
			problem = nil // a disk that does not answer: each profile says what that means to it
		}
	}
	if problem != nil {
		fail(w, problem)
		return
	}
	s.Locked = set.Locked()
	shown := set.Profiles()
	if name := r.URL.Query().Get("profile"); name != "" {
		p, problem := a.asks(w, name)
		if problem != nil {
			fail(w, problem)
			return
		}
		shown = []*profile.Profile{p}
	}
	for _, p := range shown {
		s.Profiles = append(s.Profiles, a.describe(p.Status()))
	}
	server.JSON(w, http.StatusOK, s)
}

func serves(p *profile.Profile) bool { return p.Status().Phase == profile.Serving }

// statusOf describes the profile called name; nil if there is none.
func (d *Daemon) statusOf(name string) *ipc.ProfileStatus {
	set := d.state.set.Load()
	if set == nil {
		return nil
	}
	p, known := set.Lookup(name)
	if !known {
		return nil
	}
	s := d.describe(p.Status())
	return &s
}

// describe is s as the socket tells it. It asks neither a store nor the endpoint,
// and touches no disk (invariant 1 of package profile).
func (d *Daemon) describe(s profile.Status) ipc.ProfileStatus {
	r, e := s.Record, s.Endpoints
	out := ipc.ProfileStatus{
		Profile: s.Name, Environment: r.Environment, Store: r.Store, ClientID: r.ClientID,
		TokenURL: e.Token, LoginURL: e.Login, KeysURL: e.Keys, NodesURL: e.Nodes,
		RefreshExpiry: r.RefreshExpiry.UTC(), Pending: pendingIDs(r), StoreNote: storeNote(d.options.Stores, r.Store),
		Hosts: d.config.get().Hosts(r).Origins(),
		Sinks: tokenFiles{d}.status(s.Name),
	}
	out.Warning = warning(s)
	if s.Problem == nil {
		describeToken(&out, s.Snapshot)
		out.ClockSkew = int64(s.Skew / time.Second)
		out.AccountExpiry = s.AccountExpiry.UTC()
		if s.TokenProblem != nil {
			out.Hint = hintBeside(wire(s.TokenProblem))
		}
		return out
	}
	problem := wire(s.Problem)
	out.State, out.LastError, out.Hint = stateOf(problem.Code), problem.Detail, hintBeside(problem)
	if k := s.Kept; k != nil {
		out.Generation, out.IssuedAt, out.ExpiresAt = k.Generation, k.IssuedAt.UTC(), k.Expiry.UTC()
	}
	return out
}

// hintBeside is p's hint, unless that is to look at the status: this is it.
func hintBeside(p *ipc.Problem) string {
	if p.Hint == "bloq-agent status" {
		return ""
	}
	return p.Hint
}

// warning says where else a copy of the login is, and which token of it is lost.
func warning(s profile.Status) string {
	var parts []string
	if s.Unusable != "" {
		parts = append(parts, s.Unusable)
	}
	if len(s.Copies) > 0 {
		parts = append(parts, "a copy of the login is left in the "+strings.Join(s.Copies, " and the ")+"; it is deleted as soon as that can be had")
	}
	if s.HeldInMemory {
		parts = append(parts, "its refresh token stays in memory, because nothing else has it (bloq-agent lock --force drops it)")
	}
	if s.Stuck != "" {
		parts = append(parts, s.Stuck)
	}
	return strings.Join(parts, "; ")
}

// storeNote is a sentence on what a store protects, where that is not plain.
func storeNote(s profile.Stores, name string) string {
	switch {
	case name == "memory":
		return "it forgets everything when the daemon ends"
	case store.Place(name) == "file":
		return s.File.Key().Describe()
	}
	return ""
}

func describeToken(out *ipc.ProfileStatus, t *refresher.Snapshot) {
	out.Generation, out.Exchanges, out.Failures = t.Generation, t.Exchanges, t.Failures
	out.NextRefresh = t.NextAttempt().UTC()
	out.ErrorClass = t.Class.String()
	if t.Err != nil {
		out.LastError = t.Err.Error()
	}
	if t.SaveErr != nil {
		out.Unsaved = true
		out.LastError = "refresh token is not saved: " + t.SaveErr.Error()
	}
	valid := t.Valid()
	if valid {
		out.IssuedAt, out.ExpiresAt = t.IssuedAt().UTC(), t.Expiry().UTC()
	}
	switch {
	case t.Class == refresher.NeedsLogin:
		out.State = ipc.StateNeedsLogin
	case t.Class == refresher.Configuration:
		out.State = ipc.StateConfiguration
	case !valid:
		out.State = ipc.StateUnavailable
	case t.Class != refresher.None:
		out.State = ipc.StateStale
	default:
		out.State = ipc.StateFresh
	}
}

func stateOf(c ipc.Code) string {
	switch c {
	case ipc.CodeNeedsLogin:
		return ipc.StateNeedsLogin
	case ipc.CodeLocked:
		return ipc.StateLocked
	case ipc.CodeConfiguration:
		return ipc.StateConfiguration
	}
	return ipc.StateUnavailable
}

func pendingIDs(r store.Profile) []string {
	var ids []string
	for _, k := range r.Pending {
		ids = append(ids, k.ClientID)
	}
	return ids
}
