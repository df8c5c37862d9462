package main

import (
	"fmt"
	"math"
	"net/url"
	"strings"
	"time"

	"bloq-agent/ipc"

	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	var profile string
	var asJSON, watch, callers bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "show every profile: its token, the next refresh, what is wrong",
		Long: `Show every profile. The exit status is 3 if one of them needs you: a login, or
a keyring to unlock.`,
		Args: noArgs,
		RunE: runner(func(cmd *cobra.Command, _ []string) error {
			l, err := dial(cmd)
			if err != nil {
				return err
			}
			if callers {
				return showCallers(l, asJSON)
			}
			if watch {
				return watchEvents(cmd.Context(), l, profile, asJSON)
			}
			var s ipc.Status
			if err := l.get(ipc.RouteStatus, only(profile), &s); err != nil {
				return err
			}
			hints := hintsOf(s)
			if err := show(s, asJSON, hints); err != nil {
				return err
			}
			if err := needsPerson(s); err != nil || len(hints) != 1 || asJSON {
				return err
			}
			complain("hint: %s", hints[0].text) // nobody must act, and it helps
			return nil
		}),
	}
	cmd.Flags().StringVarP(&profile, "profile", "p", "", "only this profile")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&callers, "callers", false, "show which programs asked last")
	cmd.Flags().BoolVar(&watch, "watch", false, "print what happens, until interrupted")
	return cmd
}

// A hint is a command that mends something.
type hint struct{ what, text string }

// hintsOf are what can be typed about s, each once. To look at the status is
// what the person has just done.
func hintsOf(s ipc.Status) []hint {
	var list []hint
	if s.Locked {
		list = append(list, hint{"agent", unlockHint})
	}
	if s.Config.Error != "" {
		list = append(list, hint{"configuration", "bloq-agent config check"})
	}
	for _, p := range s.Profiles {
		if p.LastError != "" && p.Hint != "" && p.Hint != "bloq-agent status" && !(s.Locked && p.Hint == unlockHint) {
			list = append(list, hint{p.Profile, p.Hint})
		}
	}
	return list
}

func unwatchedLine(c ipc.ConfigStatus) string {
	return "a change of " + c.Path + " is only noticed after the next refresh or status, because it cannot be watched: " + c.Unwatched
}

const unlockHint = "bloq-agent unlock"

// show prints s. Of one hint the caller speaks; several stand beside what they
// mend, because stderr has room for one.
func show(s ipc.Status, asJSON bool, hints []hint) error {
	if asJSON {
		return printJSON(s, "  ")
	}
	if err := printf("bloq-agent %s, process %d, running for %s\n", s.Version, s.PID, span(time.Since(s.StartedAt))); err != nil {
		return err
	}
	if err := printf("%s\n", hardeningLine(s.Hardening)); err != nil {
		return err
	}
	if s.Config.Error != "" {
		for _, line := range strings.Split(s.Config.Error, "\n") {
			complain("error: configuration not taken: %s", line)
		}
	}
	if s.Config.Unwatched != "" {
		if err := printf("%s\n", unwatchedLine(s.Config)); err != nil {
			return err
		}
	}
	if s.Locked {
		if err := printf("locked: nobody gets a token until it is unlocked\n"); err != nil {
			return err
		}
	}
	for _, f := range s.Unremoved {
		if err := printf("token file %s could not be removed: %s\n", f.Path, f.Error); err != nil {
			return err
		}
	}
	if err := table(s.Profiles); err != nil || len(hints) < 2 {
		return err
	}
	for _, h := range hints {
		if err := printf("%s: hint: %s\n", h.what, h.text); err != nil {
			return err
		}
	}
	return nil
}

// hardeningLine says what the kernel holds.
func hardeningLine(h ipc.Hardening) string {
	parts := []string{"memory closed to other programs"}
	switch {
	case h.Dumpable:
		parts[0] = "memory open to your programs"
	case h.UserNamespace:
		parts[0] = "memory open to who made the user namespace"
	}
	if h.CoreLimit == 0 || !h.Dumpable {
		parts = append(parts, "no core files")
	} else {
		parts = append(parts, "core files possible")
	}
	if len(h.Writable) > 0 {
		parts = append(parts, "writes confined (Landlock "+h.Landlock+")")
	} else {
		parts = append(parts, "writes not confined (Landlock "+h.Landlock+")")
	}
	if h.Loopback != "" {
		parts = append(parts, "listeners on loopback unknown ("+h.Loopback+")")
	}
	return strings.Join(parts, ", ")
}

func table(profiles []ipc.ProfileStatus) error {
	if len(profiles) == 0 {
		return printf("no profile yet; bloq-agent login\n")
	}
	rows := [][]string{{"PROFILE", "STATE", "TOKEN GOOD FOR", "NEXT REFRESH", "LOGIN ENDS", "STORE", "ENDPOINT"}}
	for _, p := range profiles {
		rows = append(rows, []string{
			p.Profile, p.State, until(p.ExpiresAt), in(p.NextRefresh), date(p.RefreshExpiry), dash(p.Store), dash(host(p.TokenURL)),
		})
	}
	if err := printTable(rows...); err != nil {
		return err
	}
	for _, p := range profiles {
		if p.Warning != "" {
			complain("warning: %s: %s", p.Profile, p.Warning)
		}
		for _, line := range notes(p) {
			if err := printf("%s\n", line); err != nil {
				return err
			}
		}
	}
	return nil
}

// notes are what a person should know of a profile beside its row, if anything.
func notes(p ipc.ProfileStatus) []string {
	var list []string
	if p.StoreNote != "" {
		list = append(list, fmt.Sprintf("%s: %s store: %s", p.Profile, p.Store, p.StoreNote))
	}
	switch s := p.ClockSkew; {
	case s > 30:
		list = append(list, fmt.Sprintf("%s: the endpoint's clock is %s ahead of this machine's", p.Profile, apart(s)))
	case s < -30:
		list = append(list, fmt.Sprintf("%s: the endpoint's clock is %s behind this machine's", p.Profile, apart(-max(s, -math.MaxInt64))))
	}
	list = append(list, sinkNotes(p)...)
	if p.LastError != "" {
		list = append(list, p.Profile+": "+strings.TrimPrefix(p.LastError, p.Profile+": "))
	}
	return list
}

// apart is how many seconds two clocks differ, as people say it.
func apart(seconds int64) string {
	const year = 365 * 24 * 60 * 60
	if seconds > year {
		return "more than a year"
	}
	return (time.Duration(seconds) * time.Second).String()
}

// sinkNotes speak of the files that are not as they should be.
func sinkNotes(p ipc.ProfileStatus) []string {
	var list []string
	for _, s := range p.Sinks {
		if s.Error != "" {
			list = append(list, fmt.Sprintf("%s: sink %s: %s", p.Profile, s.Path, s.Error))
		}
	}
	return list
}

// needsPerson makes the exit code 3, with the hint for the first who needs one.
func needsPerson(s ipc.Status) error {
	if s.Locked {
		return fail(ipc.ExitPerson, unlockHint, "locked")
	}
	for _, p := range s.Profiles {
		if p.State == ipc.StateNeedsLogin || p.State == ipc.StateLocked {
			return fail(ipc.ExitPerson, p.Hint, "%s: %s", p.Profile, p.State)
		}
	}
	return nil
}

func until(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(time.Until(t))
}

func in(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	if d := time.Until(t); d > 0 {
		return "in " + span(d)
	}
	return "now"
}

func date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateOnly)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// span is a duration as people say it: two units at most.
func span(d time.Duration) string {
	d = max(0, d).Round(time.Second)
	switch {
	case d < time.Minute:
		return d.String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

func host(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	return u.Scheme + "://" + u.Host
}
