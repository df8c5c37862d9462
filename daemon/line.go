package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"bloq-agent/daemon/profile"
	"bloq-agent/daemon/systemd"
	"bloq-agent/ipc"
)

// linePause is the least time between two lines of status. A thousand profiles that
// refresh at the same moment cost a few lines, and not a thousand.
const linePause = 100 * time.Millisecond

// keepStatusLine keeps the line current that `systemctl status` shows. It runs
// beside the refreshers, which do not wait for systemd.
func (n narrator) keepStatusLine(ctx context.Context) {
	for systemd.Managed() {
		systemd.Status(statusLine(n.Daemon))
		select {
		case <-ctx.Done():
			return
		case <-time.After(linePause):
		}
		select {
		case <-ctx.Done():
			return
		case <-n.told.line:
		}
	}
}

// lineDue has the line of status made anew.
func (t *told) lineDue() {
	select {
	case t.line <- struct{}{}:
	default: // it is due already
	}
}

// statusLine describes the profiles in at most systemd.MaxStatus bytes, problems
// first. If that is not enough for all, it begins with how many are in which state.
func statusLine(d *Daemon) string {
	if lost := d.told.socket.Load(); lost != nil && *lost != "" {
		return ipc.Visible(*lost)
	}
	set := d.state.set.Load()
	if set == nil {
		return "the profiles cannot be read; bloq-agent status"
	}
	all := set.Profiles()
	if len(all) == 0 {
		return "no profile yet; bloq-agent login"
	}
	var problems, fine []string
	counts := map[string]int{}
	for _, p := range all {
		state, part := lineOf(p)
		counts[state]++
		if state == ipc.StateFresh {
			fine = append(fine, part)
		} else {
			problems = append(problems, part)
		}
	}
	line := strings.Join(append(problems, fine...), "; ")
	if len(line) <= systemd.MaxStatus {
		return line
	}
	return abridge(counts, append(problems, fine...))
}

// maxPart is the most of one profile in a line that is too long.
const maxPart = 300

// abridge is the line of more parts than fit.
func abridge(counts map[string]int, parts []string) string {
	var states []string
	for state, n := range counts {
		states = append(states, fmt.Sprintf("%d %s", n, state))
	}
	slices.Sort(states)
	line := "profiles: " + strings.Join(states, ", ") + "; "
	for i, part := range parts {
		if len(part) > maxPart {
			part = strings.ToValidUTF8(part[:maxPart], "") + "…"
		}
		more := fmt.Sprintf("and %d more", len(parts)-i)
		if len(line)+len(part)+len("; ")+len(more) > systemd.MaxStatus {
			return line + more
		}
		line += part + "; "
	}
	return strings.TrimSuffix(line, "; ")
}

// lineOf is the state of p, and what the line of status says of it.
func lineOf(p *profile.Profile) (state, part string) {
	now := p.Status()
	if now.Problem != nil { // it begins with the profile's name
		return stateOf(wire(now.Problem).Code), ipc.Visible(now.Problem.Error()) // a line of its own would be another word to systemd
	}
	var s ipc.ProfileStatus
	describeToken(&s, now.Snapshot)
	part = fmt.Sprintf("%s: %s", now.Name, s.State)
	if !s.NextRefresh.IsZero() {
		part += ", next refresh " + s.NextRefresh.Local().Format(time.TimeOnly)
	}
	return s.State, ipc.Visible(part)
}
