package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"bloq-agent/ipc"
	"bloq-agent/store/trusted"
)

// asks is resolve for the request that w answers.
func (d *Daemon) asks(w http.ResponseWriter, name string) (*profile, *ipc.Problem) {
	p, problem := d.resolve(name)
	if problem == nil {
		tellProfile(w, p.name)
	}
	return p, problem
}

// notTaken is the answer while there is no configuration in force.
func notTaken(err error) *ipc.Problem {
	first, more, _ := strings.Cut(err.Error(), "\n")
	hint := trusted.Mend(err)
	if hint == "" || more != "" {
		hint = "bloq-agent config check"
	}
	return &ipc.Problem{Code: ipc.CodeConfiguration, Detail: first, Hint: hint}
}

// resolve finds the profile that a request means: the named one, else the only
// one there is, else "default".
func (d *Daemon) resolve(name string) (*profile, *ipc.Problem) {
	if c := d.config.Load(); c.loaded.IsZero() {
		return nil, notTaken(c.err)
	}
	names := d.names()
	if name == "" {
		switch {
		case len(names) == 1:
			return d.profile(names[0]), nil
		case len(names) == 0:
			return nil, &ipc.Problem{Code: ipc.CodeNeedsLogin, Detail: "nobody has logged in yet", Hint: "bloq-agent login"}
		}
		name = "default"
	}
	for _, n := range names {
		if n == name {
			return d.profile(n), nil
		}
	}
	p := &ipc.Problem{Code: ipc.CodeUnknownProfile, Detail: fmt.Sprintf("no such profile %q", name), Hint: "bloq-agent status"}
	if near := nearest(name, names); near != "" {
		p.Hint = fmt.Sprintf("did you mean %q?", near)
	}
	return nil, p
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
