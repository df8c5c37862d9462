package daemon

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/daemon/profile"
	"bloq-agent/ipc"
	"bloq-agent/refresher"

	"github.com/rs/zerolog"
)

// told is what people have been told already, so that they hear it once.
type told struct {
	lost     atomic.Bool // access tokens will not survive a restart
	refusals seldom
	troubles seldom
	line     chan struct{}          // holds one: the line of status is another now
	socket   atomic.Pointer[string] // why callers do not find it; see ownSocket.lost

	mu   sync.Mutex
	days map[string]int64 // by profile: days before the end of its login
	skew map[string]bool  // by profile: the clocks differ
}

// A line is how the log tells of an event. %s is the event's Detail.
type line struct {
	level   zerolog.Level
	message string
}

// lines are for the events that are no publication. An event that has no line
// here is for watchers only.
var lines = map[profile.EventKind]line{
	profile.LoginAdopted:  {zerolog.InfoLevel, "adopted a login"},
	profile.Moved:         {zerolog.InfoLevel, "moved"},
	profile.Forgotten:     {zerolog.InfoLevel, "forgot a login"},
	profile.LockedAll:     {zerolog.InfoLevel, "locked"},
	profile.UnlockedAll:   {zerolog.InfoLevel, "unlocked"},
	profile.ReplyLost:     {zerolog.WarnLevel, "a reply of the endpoint may have been lost; trying the refresh token once more"},
	profile.NotBought:     {zerolog.WarnLevel, "the client keys buy no new refresh token"},
	profile.Unusable:      {zerolog.WarnLevel, "the endpoint sent a new refresh token that cannot be used; the one before is used again"},
	profile.CopyLeft:      {zerolog.WarnLevel, "trying again until it is deleted"},
	profile.NotRecorded:   {zerolog.WarnLevel, "the record of the profile could not be written"},
	profile.NotUndone:     {zerolog.ErrorLevel, "store keeps the login that was not adopted"},
	profile.NotReloaded:   {zerolog.ErrorLevel, "the configuration is not taken for this profile before its refresh token is saved"},
	profile.RejectedByAPI: {zerolog.InfoLevel, "a server is said to have refused the token; refreshing"},
	profile.StoppingWaits: {zerolog.InfoLevel, "stopping when an exchange under way is over: waiting for %s, 40 s at most"},
	profile.StoppingLoses: {zerolog.ErrorLevel, "stopping with a refresh token that could not be saved: the login will be lost"},
}

// streamed are the events that watchers hear of by a name of their own
// (PROTOCOL.md section 2.5).
var streamed = map[profile.EventKind]string{
	profile.Changed:   "status",
	profile.Forgotten: "forgotten",
	profile.LockedAll: "locked",
}

// A narrator tells people and watchers what happens.
type narrator struct{ *Daemon }

// heardOf is the profiles' Event function: it logs, tells watchers and systemd, and
// has what depends on tokens follow. It never blocks for long.
func (n narrator) heardOf(e profile.Event) {
	if e.Kind == profile.Published {
		n.published(e)
	} else {
		n.logEvent(e)
		n.stream(e)
	}
	switch e.Kind {
	case profile.Published, profile.Changed, profile.LoginAdopted, profile.Forgotten:
		if e.Previous == nil || e.Current == nil || e.Previous.Generation != e.Current.Generation {
			n.tokens.Changed()
		}
		n.sinks.Touch(e.Profile)
		n.told.lineDue()
		n.config.look()
	}
}

func (n narrator) logEvent(e profile.Event) {
	if e.Kind == profile.Changed && e.Err != nil {
		code := wire(e.Err).Code
		n.log.Warn().Str("profile", e.Profile).Str("code", string(code)).Msg(e.Err.Error())
	}
	l, ok := lines[e.Kind]
	if !ok {
		return
	}
	entry := n.log.WithLevel(l.level)
	for _, field := range [][2]string{
		{"profile", e.Profile}, {"store", e.Store}, {"from", e.From}, {"since", e.Since}, {"would_have_saved_it", e.Command},
	} {
		if field[1] != "" {
			entry = entry.Str(field[0], field[1])
		}
	}
	if e.Err != nil {
		entry = entry.Err(e.Err)
	}
	entry.Msg(strings.Replace(l.message, "%s", e.Detail, 1))
}

func (n narrator) stream(e profile.Event) {
	name, ok := streamed[e.Kind]
	if !ok {
		return
	}
	out := ipc.Event{Time: n.outside.Clock.Now().UTC(), Event: name, Profile: e.Profile}
	if e.Kind == profile.Changed {
		out.Status = n.statusOf(e.Profile)
	}
	n.hub.publish(out)
}

// published tells of what a refresher has published.
func (n narrator) published(e profile.Event) {
	now := n.outside.Clock.Now()
	name, level := nameOf(e.Previous, e.Current)
	entry := n.log.WithLevel(level).Str("profile", e.Profile).Uint64("gen", e.Current.Generation)
	if e.Current.Err != nil {
		entry = entry.Int("attempt", e.Current.Failures).AnErr("err", e.Current.Err)
	}
	if e.Current.SaveErr != nil {
		entry = entry.AnErr("save_err", e.Current.SaveErr)
	}
	if e.Current.Valid() {
		entry = entry.Time("expiry", e.Current.Expiry())
	}
	if wait := e.Current.NextAttempt().Sub(now); wait > 0 {
		entry = entry.Str("retry_in", wait.Round(time.Millisecond).String())
	}
	entry.Msg(name)
	status := n.statusOf(e.Profile)
	n.hub.publish(ipc.Event{Time: now.UTC(), Event: name, Profile: e.Profile, Status: status})
	if status != nil {
		n.warnOfEnd(*status, now)
		n.warnOfSkew(*status)
	}
}

// nameOf is the event of a publication, and the level at which it is logged.
func nameOf(previous, current *refresher.Snapshot) (string, zerolog.Level) {
	onlySave := previous != nil && previous.Exchanges == current.Exchanges
	switch {
	case current.Hinted:
		return "status", zerolog.DebugLevel
	case onlySave && current.SaveErr != nil:
		return "not saved", zerolog.WarnLevel
	case onlySave:
		return "saved", zerolog.InfoLevel
	case current.Class == refresher.NeedsLogin || current.Class == refresher.Configuration:
		return current.Class.String(), zerolog.ErrorLevel
	case untrusted(current.Err):
		// It is tried again like any outage, and may be no more than a hotel's
		// network; but it may be somebody between us and Bloq.
		return "refresh failed", zerolog.ErrorLevel
	case current.Class != refresher.None:
		return "refresh failed", zerolog.WarnLevel
	case previous != nil && previous.Class != refresher.None:
		return "recovered", zerolog.InfoLevel
	}
	return "refreshed", zerolog.InfoLevel
}

// untrusted reports whether err says that the endpoint's certificate, or the user
// that it runs as, was not accepted.
func untrusted(err error) bool {
	var e *accounts.Error
	return errors.As(err, &e) && e.Untrusted
}

// skewNoted is the difference of the clocks, in seconds, that people are told of.
// Tokens are served by durations, so it breaks nothing here. But the API judges by
// its own clock, and so does TLS.
const skewNoted = 30

// warnOfSkew warns once, until the clocks agree again.
func (n narrator) warnOfSkew(s ipc.ProfileStatus) {
	off := max(s.ClockSkew, -s.ClockSkew) > skewNoted
	n.told.mu.Lock()
	before := n.told.skew[s.Profile]
	n.told.skew[s.Profile] = off
	n.told.mu.Unlock()
	if off && !before {
		n.log.Warn().Str("profile", s.Profile).Int64("clock_skew_seconds", s.ClockSkew).
			Msg("the clock of the endpoint and the one of this machine differ")
	}
}

// warnDays are how long before its end people are told of a login's end.
var warnDays = []int64{1, 7, 14, 30}

// warnOfEnd warns once for each of warnDays.
func (n narrator) warnOfEnd(s ipc.ProfileStatus, now time.Time) {
	day := endWarning(s.RefreshExpiry, now)
	n.told.mu.Lock()
	before := n.told.days[s.Profile]
	n.told.days[s.Profile] = day
	n.told.mu.Unlock()
	if day == 0 || before != 0 && before <= day {
		return
	}
	left := max(0, s.RefreshExpiry.Sub(now))
	n.log.Warn().Str("profile", s.Profile).Time("login_ends", s.RefreshExpiry).
		Msgf("the login ends in %d days; bloq-agent login --profile %s", int(left.Hours()/24), s.Profile)
	n.hub.publish(ipc.Event{Time: now.UTC(), Event: "login ends", Profile: s.Profile, Status: &s})
}

// endWarning is the smallest of warnDays that a login which ends at end is within,
// or 0.
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
