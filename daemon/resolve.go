package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"bloq-agent/daemon/dialect"
	"bloq-agent/daemon/profile"
	"bloq-agent/ipc"
)

// set returns the profiles, or why no request can be answered.
func (a api) set() (*profile.Set, *ipc.Problem) {
	if problem := a.config.problem(); problem != nil {
		return nil, problem
	}
	return a.state.get()
}

// asks is resolve for the request that w answers.
func (a api) asks(w http.ResponseWriter, name string) (*profile.Profile, *ipc.Problem) {
	p, problem := a.resolve(name)
	if problem == nil {
		tellProfile(w, p.Name())
	}
	return p, problem
}

// resolve finds the profile that a request means: the named one, else the only one
// that exists, else "default". A request that names a host goes to owner instead.
func (a api) resolve(name string) (*profile.Profile, *ipc.Problem) {
	set, problem := a.set()
	if problem != nil {
		return nil, problem
	}
	all := set.Profiles()
	if name == "" {
		switch {
		case len(all) == 1:
			return all[0], nil
		case len(all) == 0:
			return nil, a.nobody(set)
		}
		name = "default"
	}
	if p, ok := set.Lookup(name); ok {
		return p, nil
	}
	unknown := &ipc.Problem{Code: ipc.CodeUnknownProfile, Detail: fmt.Sprintf("no such profile %q", name), Hint: "bloq-agent status"}
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.Name()
	}
	if near := nearest(name, names); near != "" {
		unknown.Hint = fmt.Sprintf("did you mean %q?", near)
	}
	return nil, unknown
}

// nobody is the answer while there is no profile at all. A home that was mounted
// after the start hides the profiles that it has, so that is looked for first.
func (a api) nobody(set *profile.Set) *ipc.Problem {
	if err := set.Misplaced(); err != nil {
		return wire(err)
	}
	return &ipc.Problem{Code: ipc.CodeNeedsLogin, Detail: "nobody has logged in yet", Hint: "bloq-agent login"}
}

// owner is the profile whose token q's target may be given, or nil. A profile that
// is named must have the host. Without a name it is the one that has it; of several
// it is default, or else the first.
func (a api) owner(name string, q dialect.Question) (*profile.Profile, *ipc.Problem) {
	c := a.config.get()
	if name != "" || q.AllHosts {
		p, problem := a.resolve(name)
		if problem != nil || !q.AllHosts && !c.Hosts(p.Record()).Allows(q.Target) {
			return nil, problem
		}
		return p, nil
	}
	set, problem := a.set()
	if problem != nil {
		return nil, problem
	}
	var first *profile.Profile
	for _, p := range set.Profiles() {
		switch {
		case !c.Hosts(p.Record()).Allows(q.Target):
		case p.Name() == "default":
			return p, nil
		case first == nil:
			first = p
		}
	}
	return first, nil
}

// nearest is the name that at most two edits lead to, or "".
func nearest(name string, names []string) string {
	best, bestDistance := "", 3
	for _, n := range names {
		if d := distance(name, n); d < bestDistance && d < len(n) {
			best, bestDistance = n, d
		}
	}
	return best
}

// distance is Levenshtein's, with a swap of neighbours as one edit.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// parseValues reads a query of single values.
func parseValues(raw string) (map[string]string, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, errors.New("query cannot be read")
	}
	single := make(map[string]string, len(values))
	for key, list := range values {
		if len(list) != 1 {
			return nil, fmt.Errorf("parameter %q is given twice", key)
		}
		single[key] = strings.TrimSpace(list[0])
	}
	return single, nil
}
