package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"bloq-agent/store/turn"
)

const (
	profilesFile    = "profiles.json"
	profilesVersion = 2 // 1 had one Leftover, and neither Rotates nor Ended
)

// A Profile is what is known of a login besides its secrets.
type Profile struct {
	Name        string `json:"name"`
	ID          string `json:"id"` // see NewID
	Environment string `json:"environment,omitempty"`
	LoginURL    string `json:"login_url,omitempty"`
	TokenURL    string `json:"token_url,omitempty"`
	KeysURL     string `json:"keys_url,omitempty"`
	NodesURL    string `json:"nodes_url,omitempty"`
	// Store is where its item rests. It is empty until a login was adopted.
	Store    string `json:"store,omitempty"`
	ClientID string `json:"client_id,omitempty"`
	// Leftovers are other stores that may hold a copy of the item: a move, a login
	// or a logout was under way, or could not delete it.
	Leftovers []string `json:"leftovers,omitempty"`
	// Leftover is the only one, in a file of version 1.
	Leftover string `json:"leftover,omitempty"`
	// Ended tells which credential was there when a logout ended the login: it is
	// not logged in by again. It is empty for none.
	Ended string `json:"ended_credential,omitempty"`
	// Rotates says that the endpoint was seen to replace a refresh token.
	Rotates bool `json:"rotates,omitempty"`
	// Pending are client keys that logins made before they failed, or that a
	// login under way has just made.
	Pending []PendingKey `json:"pending_client_keys,omitempty"`
	// RefreshExpiry is when the refresh token ends; zero if unknown.
	RefreshExpiry time.Time `json:"refresh_token_expires_at,omitzero"`
}

// A PendingKey is a pair of client keys that is not in use.
type PendingKey struct {
	ClientID string    `json:"client_id"`
	Since    time.Time `json:"since"`
	// KeysURL is where they were made and nobody else knows them. It is empty in
	// a file of before it was recorded.
	KeysURL string `json:"keys_url,omitempty"`
}

// ErrInUse says that another daemon holds the state directory: two would spend
// the same refresh tokens. An *InUseError is one.
var ErrInUse = errors.New("another bloq-agent uses this state directory")

// An InUseError names the process that holds the state directory.
type InUseError struct{ PID int }

func (e *InUseError) Error() string { return fmt.Sprintf("%v (pid %d)", ErrInUse, e.PID) }

// Unwrap is ErrInUse.
func (e *InUseError) Unwrap() error { return ErrInUse }

// Profiles is profiles.json of one state directory. Its methods may be called
// by several goroutines of one process.
type Profiles struct {
	dir  *Dir
	note string // what was mended when it was opened; "" if nothing

	// writing is held over the disk's I/O. Readers load list and never wait for it.
	writing turn.Mutex
	list    atomic.Pointer[[]Profile] // sorted by name; never modified
}

type profilesWire struct {
	Version  int       `json:"version"`
	Profiles []Profile `json:"profiles"`
}

// OpenProfiles reads profiles.json in dir, and makes dir if need be. Until Close
// no other process can open it: the error is ErrInUse then. A file that cannot be
// read is an error and stays as it is.
func OpenProfiles(dir string) (*Profiles, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	p := &Profiles{dir: d}
	p.list.Store(&[]Profile{})
	if err := p.read(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Close lets another process open the directory.
func (p *Profiles) Close() error { return p.dir.close() }

// Dir is the state directory.
func (p *Profiles) Dir() *Dir { return p.dir }

func (p *Profiles) path() string { return p.dir.path(profilesFile) }

func (p *Profiles) read() error {
	own := disk.CheckOwn(p.path(), 0)
	if errors.Is(own, fs.ErrNotExist) {
		return nil
	}
	if own == nil {
		p.note = closeToOthers(p.path(), 0o077, 0o600)
	}
	data, err := disk.Read(p.path()) // its refusals name what to type
	if err == nil {
		err = own // which allows no link and no file of root's
	}
	if err != nil {
		return err
	}
	list, err := parseProfiles(data)
	if err != nil {
		return fmt.Errorf("%s: %w", p.path(), err)
	}
	p.list.Store(&list)
	return nil
}

// Note is what a person should know of how the directory and the file were found,
// or "".
func (p *Profiles) Note() string { return strings.Trim(p.dir.note+"; "+p.note, "; ") }

func parseProfiles(data []byte) ([]Profile, error) {
	if v := versionOf(data); v > profilesVersion {
		return nil, fmt.Errorf("it was written by a newer bloq-agent: its version is %d, and this one reads up to %d; install that one", v, profilesVersion)
	}
	var w profilesWire
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is something after its end")
	}
	if w.Version != profilesVersion && w.Version != 1 {
		return nil, fmt.Errorf("version %d is not known here", w.Version)
	}
	for i, p := range w.Profiles {
		if err := checkProfile(p, w.Profiles[:i]); err != nil {
			return nil, err
		}
		w.Profiles[i].RefreshExpiry = inUTC(p.RefreshExpiry)
	}
	slices.SortFunc(w.Profiles, byName)
	return w.Profiles, nil
}

// inUTC is t in UTC, or the nearest time that RFC 3339 can write there. With its
// zone a time can be in the year 9999 and in UTC in the year 10000, which JSON
// refuses.
func inUTC(t time.Time) time.Time {
	first, last := time.Time{}, time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)
	switch t = t.UTC(); {
	case t.Before(first):
		return first
	case t.After(last):
		return last
	}
	return t
}

// versionOf comes before anything else is said of data: in a file of a newer
// version, an unknown field is no damage. It is 0 if there is none.
func versionOf(data []byte) int {
	var w struct{ Version int }
	if json.NewDecoder(bytes.NewReader(data)).Decode(&w) != nil {
		return 0
	}
	return w.Version
}

// checkProfile reports what keeps p from standing beside others. Two of one id
// would share an item: who logs out of one of them logs out of both, and each
// spends the other's refresh token.
func checkProfile(p Profile, others []Profile) error {
	if !validName(p.Name) {
		return fmt.Errorf("no profile can be called %.80q", p.Name)
	}
	if err := checkID(p.ID); err != nil {
		return fmt.Errorf("profile %q: %w", p.Name, err)
	}
	if strings.HasPrefix(p.ID, probePrefix) {
		return fmt.Errorf("profile %q: %q is no profile id", p.Name, p.ID) // a probe deletes its item
	}
	for _, o := range others {
		switch {
		case o.Name == p.Name:
			return fmt.Errorf("profile %q is there twice", p.Name)
		case o.ID == p.ID:
			return fmt.Errorf("profiles %q and %q have the same id, so they would share one login; take one of them out of the file", o.Name, p.Name)
		}
	}
	return nil
}

func byName(a, b Profile) int { return strings.Compare(a.Name, b.Name) }

// validName is [a-z0-9][a-z0-9_-]{0,31}.
func validName(s string) bool {
	const first = "abcdefghijklmnopqrstuvwxyz0123456789"
	return len(s) >= 1 && len(s) <= 32 && strings.Trim(s, first+"_-") == "" && strings.IndexAny(s[:1], first) == 0
}

// List returns every profile, sorted by name. The caller must not modify it.
func (p *Profiles) List() []Profile { return *p.list.Load() }

// Lookup returns the profile called name.
func (p *Profiles) Lookup(name string) (Profile, bool) {
	list := p.List()
	i, found := slices.BinarySearchFunc(list, Profile{Name: name}, byName)
	if !found {
		return Profile{}, false
	}
	return list[i], true
}

// Put adds a profile or replaces the one of its name. When it returns nil the
// change is on the disk; else nothing has changed here, and the disk has the one
// or the other.
func (p *Profiles) Put(profile Profile) error {
	return p.change(func(list []Profile) ([]Profile, error) {
		i, found := slices.BinarySearchFunc(list, profile, byName)
		if found {
			list = slices.Delete(list, i, i+1)
		}
		if err := checkProfile(profile, list); err != nil {
			return nil, err
		}
		return slices.Insert(list, i, profile), nil
	})
}

// Amend changes the profile called name by f, if there is one.
func (p *Profiles) Amend(name string, f func(*Profile)) error {
	return p.change(func(list []Profile) ([]Profile, error) {
		for i := range list {
			if list[i].Name == name {
				f(&list[i])
			}
		}
		return list, nil
	})
}

// Remove drops the profile called name, if there is one.
func (p *Profiles) Remove(name string) error {
	return p.change(func(list []Profile) ([]Profile, error) {
		return slices.DeleteFunc(list, func(x Profile) bool { return x.Name == name }), nil
	})
}

func (p *Profiles) change(f func([]Profile) ([]Profile, error)) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	list, err := f(slices.Clone(p.List()))
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(profilesWire{Version: profilesVersion, Profiles: list}, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding profiles: %w", err)
	}
	if err := p.dir.WriteFile(profilesFile, append(data, '\n')); err != nil {
		return err
	}
	p.list.Store(&list)
	return nil
}
