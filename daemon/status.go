package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/daemon/systemd"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
	"bloq-agent/refresher"
	"bloq-agent/store"
	"bloq-agent/store/failpoint"
)

func (d *Daemon) handleStatus(w http.ResponseWriter, r *http.Request) {
	config := d.config.Load()
	s := ipc.Status{
		Version: d.options.Version, PID: os.Getpid(), StartedAt: d.started.UTC(), Locked: d.locked.Load(),
		Config:     ipc.ConfigStatus{Path: d.options.ConfigPath, LoadedAt: config.loaded.UTC()},
		TokensKept: d.tokens.State(), Profiles: []ipc.ProfileStatus{}, Hardening: d.hardening(),
		Unremoved: d.dropped(),
	}
	if config.err != nil {
		s.Config.Error = config.err.Error()
	}
	names := d.names()
	if name := r.URL.Query().Get("profile"); name != "" {
		p, problem := d.asks(w, name)
		if problem != nil {
			fail(w, problem)
			return
		}
		names = []string{p.name}
	}
	for _, name := range names {
		s.Profiles = append(s.Profiles, d.profileStatus(d.profile(name)))
	}
	server.JSON(w, http.StatusOK, s)
}

// profileStatus describes p. It never asks the store or the endpoint.
func (d *Daemon) profileStatus(p *profile) ipc.ProfileStatus {
	return p.state.Load().describe(d, p.name, time.Now())
}

func (s *state) describe(d *Daemon, name string, now time.Time) ipc.ProfileStatus {
	f := d.facts(name)
	out := ipc.ProfileStatus{
		Profile: name, Environment: f.Environment, Store: f.Store, ClientID: f.ClientID,
		TokenURL: s.endpoints.Token, LoginURL: s.endpoints.Login, KeysURL: s.endpoints.Keys, NodesURL: s.endpoints.Nodes,
		RefreshExpiry: f.RefreshExpiry.UTC(), Pending: pendingIDs(f), StoreNote: d.options.Stores.note(f.Store),
		Hosts: d.hosts(name).Origins(),
		Sinks: d.sinkStatus(name),
	}
	if elsewhere(f) && f.Store != "" {
		out.Warning = "a copy of the login is left in the " + f.Leftover + "; it is deleted as soon as that can be had"
	}
	if s.problem != nil {
		out.State, out.LastError, out.Hint = stateOf(s.problem.Code), s.problem.Detail, s.problem.Hint
		if out.Hint == "bloq-agent status" { // this is it
			out.Hint = ""
		}
		if t, ok := d.keptToken(d.profile(name), s); ok {
			out.Generation, out.IssuedAt, out.ExpiresAt = t.Generation, t.IssuedAt.UTC(), t.Expiry.UTC()
			clear(t.Value)
		}
		return out
	}
	describeToken(&out, s.refresher.Snapshot())
	out.ClockSkew = int64(time.Duration(s.login.skew.Load()) / time.Second)
	if _, expiry, ok := s.login.accountToken(now); ok {
		out.AccountExpiry = expiry.UTC()
	}
	switch out.State {
	case ipc.StateNeedsLogin:
		out.Hint = "bloq-agent login --profile " + name
	case ipc.StateConfiguration:
		out.Hint = configurationHint(s.refresher.Snapshot().Err, name)
	}
	return out
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

func (d *Daemon) notifyStatus() { systemd.Status(d.statusLine()) }

// statusLine is the line that `systemctl --user status` shows.
func (d *Daemon) statusLine() string {
	names := d.names()
	if len(names) == 0 {
		return "no profile yet; bloq-agent login"
	}
	parts := make([]string, 0, len(names))
	for _, name := range names {
		s := d.profileStatus(d.profile(name))
		part := fmt.Sprintf("%s: %s", name, s.State)
		if problem := d.profile(name).state.Load().problem; problem != nil {
			part = problem.Detail // it begins with the profile's name
		}
		if !s.NextRefresh.IsZero() {
			part += ", next refresh " + s.NextRefresh.Local().Format(time.TimeOnly)
		}
		parts = append(parts, part)
	}
	return ipc.Visible(strings.Join(parts, "; ")) // a line of its own would be another word to systemd
}

func pendingIDs(f store.Profile) []string {
	var ids []string
	for _, k := range f.Pending {
		ids = append(ids, k.ClientID)
	}
	return ids
}

// observe tells people and watchers what a refresher has published.
func (d *Daemon) observe(p *profile, s *state, previous, current *refresher.Snapshot) {
	p.generation.Store(current.Generation)
	if current.Class == refresher.None && current.SaveErr == nil {
		failpoint.Hit("after the publication")
		s.login.intent.done()
	}
	if previous == nil || previous.Generation != current.Generation {
		d.tokens.Changed()
	}
	now := time.Now()
	e := d.log.Info()
	name := "refreshed"
	onlySave := previous != nil && previous.Exchanges == current.Exchanges
	switch {
	case current.Hinted:
		name, e = "status", d.log.Debug()
	case onlySave && current.SaveErr != nil:
		name, e = "not saved", d.log.Warn()
	case onlySave:
		name = "saved"
	case current.Class == refresher.NeedsLogin || current.Class == refresher.Configuration:
		name, e = current.Class.String(), d.log.Error()
	case untrusted(current.Err):
		// It is tried again like any outage, and may be no more than a hotel's
		// network; but it may be somebody between us and Bloq.
		name, e = "refresh failed", d.log.Error()
	case current.Class != refresher.None:
		name, e = "refresh failed", d.log.Warn()
	case previous != nil && previous.Class != refresher.None:
		name = "recovered"
	}
	e = e.Str("profile", p.name).Uint64("gen", current.Generation)
	if current.Err != nil {
		e = e.Int("attempt", current.Failures).AnErr("err", current.Err)
	}
	if current.SaveErr != nil {
		e = e.AnErr("save_err", current.SaveErr)
	}
	if current.Valid() {
		e = e.Time("expiry", current.Expiry())
	}
	if wait := current.NextAttempt().Sub(now); wait > 0 {
		e = e.Str("retry_in", wait.Round(time.Millisecond).String())
	}
	e.Msg(name)
	status := s.describe(d, p.name, now)
	d.hub.publish(ipc.Event{Time: now.UTC(), Event: name, Profile: p.name, Status: &status})
	d.sinks.Wake()
	d.warnOfEnd(p, status, now)
	d.warnOfSkew(p, status)
	d.notifyStatus()
}

// skewNoted is the difference of clocks, in seconds, that is spoken of. Tokens
// are served by durations, so it breaks nothing here; but the API judges by its
// own clock, and so does TLS.
const skewNoted = 30

// warnOfSkew says it once, until the clocks agree again.
func (d *Daemon) warnOfSkew(p *profile, s ipc.ProfileStatus) {
	off := max(s.ClockSkew, -s.ClockSkew) > skewNoted
	if told := p.skewed.Swap(off); !off || told {
		return
	}
	d.log.Warn().Str("profile", p.name).Int64("clock_skew_seconds", s.ClockSkew).
		Msg("the clock of the endpoint and the one of this machine differ")
}

// untrusted reports whether err says that the endpoint's certificate, or the user
// that it runs as, was not accepted.
func untrusted(err error) bool {
	var e *accounts.Error
	return errors.As(err, &e) && e.Untrusted
}

// warnDays are how long before its end a login is spoken of.
var warnDays = []int64{1, 7, 14, 30}

// warnOfEnd says, once for each of warnDays, that the refresh token ends. It is
// called at every refresh, which is often enough.
func (d *Daemon) warnOfEnd(p *profile, s ipc.ProfileStatus, now time.Time) {
	day := endWarning(s.RefreshExpiry, now)
	if told := p.warned.Swap(day); day == 0 || told != 0 && told <= day {
		return
	}
	left := s.RefreshExpiry.Sub(now)
	d.log.Warn().Str("profile", p.name).Time("login_ends", s.RefreshExpiry).
		Msgf("the login ends in %d days; bloq-agent login --profile %s", int(left.Hours()/24), p.name)
	d.hub.publish(ipc.Event{Time: now.UTC(), Event: "login ends", Profile: p.name, Status: &s})
}

// endWarning is the smallest of warnDays that a login which ends at end is
// within, or 0.
func endWarning(end, now time.Time) int64 {
	if end.IsZero() {
		return 0
	}
	for _, day := range warnDays {
		if end.Sub(now) <= time.Duration(day)*24*time.Hour {
			return day
		}
	}
	return 0
}

// answers asks the socket for the status, as any caller would. A daemon that runs
// and does not serve is as good as dead.
func (d *Daemon) answers(within time.Duration) error {
	socket := d.options.Listener.Addr()
	c, err := net.DialTimeout(socket.Network(), socket.String(), within)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.0\r\n\r\n", ipc.RouteStatus); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && len(line) < len("HTTP/1.0 200") {
		err = fmt.Errorf("it says %q", line)
	}
	return err
}
