package daemon

import (
	"os"
	"path/filepath"
	"time"

	"bloq-agent/store"
	"bloq-agent/store/trusted"
)

// An intent is the path of a file that is there while a refresh token is being
// spent: from before the request until what came of it is saved and published.
// If the daemon finds it at its start, a reply may have been lost in a crash,
// and the token in the store may have been spent already. It is tried all the
// same: an endpoint that gives a grace answers again, and for one that does not
// nothing is left to lose.
type intent string

func (d *Daemon) intentOf(f store.Profile) intent {
	return intent(filepath.Join(d.options.StateDir, f.ID+".intent"))
}

// open leaves the mark. Without it a crash is only harder to explain, so a full
// disk is no reason to let the access token run out.
func (i intent) open() {
	if i != "" {
		_ = store.WriteFile(string(i), []byte(time.Now().UTC().Format(time.RFC3339)+"\n"))
	}
}

// done removes the mark.
func (i intent) done() {
	if i != "" {
		_ = os.Remove(string(i))
	}
}

// lost reports whether the mark is there, and since when.
func (i intent) lost() (since string, is bool) {
	b, err := trusted.ReadFile(string(i))
	if i == "" || err != nil {
		return "", false
	}
	return string(b), true
}
