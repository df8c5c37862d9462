package profile

import (
	"strings"
	"time"

	"bloq-agent/store"
)

// A mark is a file in the state directory that exists while a refresh token is
// being spent: from before the request until what came of it is saved and
// published. If a daemon finds it at its start, a crash may have lost a reply, and
// the token in the store may be spent. The daemon tries it all the same: an
// endpoint with a grace period answers again, and where there is none there is
// nothing left to lose.
type mark struct {
	dir  *store.Dir
	name string // "" for no mark
}

func markOf(dir *store.Dir, r store.Profile) mark { return mark{dir, r.ID + ".intent"} }

// set leaves the mark. A crash without it is only harder to explain, so a full
// disk does not stop the exchange.
func (m mark) set(now time.Time) {
	if m.name != "" {
		_ = m.dir.WriteFile(m.name, []byte(now.UTC().Format(time.RFC3339)+"\n"))
	}
}

func (m mark) clear() {
	if m.name != "" {
		_ = m.dir.Remove(m.name)
	}
}

// found reports whether the mark exists, and since when.
func (m mark) found() (since string, is bool) {
	if m.name == "" {
		return "", false
	}
	b, err := m.dir.ReadFile(m.name)
	return strings.TrimSpace(string(b)), err == nil
}
