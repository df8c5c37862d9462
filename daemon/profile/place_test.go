package profile

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/store"
)

// The state directory is not the one at its path any more: a copy took its place,
// another one was mounted over it, or there is none. Nothing is spent or written
// then, each answer says to restart, and a restart loses nothing.
func TestNothingIsSpentOrWrittenBesideTheStateDirectory(t *testing.T) {
	for name, lose := range map[string]func(dir, gone string) error{
		"a copy in its place": func(dir, gone string) error {
			return errors.Join(exec.Command("cp", "-a", dir, gone+"-copy").Run(), os.Rename(dir, gone), os.Rename(gone+"-copy", dir))
		},
		"an empty one in its place": func(dir, gone string) error { return errors.Join(os.Rename(dir, gone), os.Mkdir(dir, 0o700)) },
		"none":                      func(dir, gone string) error { return os.Rename(dir, gone) },
	} {
		for storeName := range map[string]bool{"file": true, "memory": true} {
			t.Run(name+", "+storeName, func(t *testing.T) {
				e := newEndpoint(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
				place := newPlace(t)
				s := place.open(t)
				p := s.logIn(t, e, "work", storeName)
				do(t, p.Refresh(t.Context()))
				other := e.mint(t)
				dir, gone := place.state(), filepath.Join(place.dir, "gone")
				do(t, lose(dir, gone))
				before, beforeGone, stats := files(t, dir), files(t, gone), e.api.Stats()
				secret := p.saved(t, s.memoryOr(storeName, gone))
				_, err := p.Token(t.Context(), 0) // which is good still
				do(t, err)
				_ = p.Refresh(t.Context())
				if status := p.Status(); status.TokenProblem == nil || !strings.Contains(status.TokenProblem.Error(), "since the daemon started") {
					t.Errorf("the status: %v", status.TokenProblem)
				}
				for what, change := range changes(s, p, other) {
					err := change()
					if problem := new(Problem); !errors.As(err, &problem) || !strings.Contains(problem.Detail, "since the daemon started") ||
						!strings.HasPrefix(problem.Hint, "restart it") {
						t.Errorf("%s: %+v", what, err)
					}
				}
				if got := e.api.Stats(); !maps.Equal(got.Grants, stats.Grants) {
					t.Errorf("%v was asked for, after %v", got.Grants, stats.Grants)
				}
				if !maps.Equal(files(t, dir), before) || !maps.Equal(files(t, gone), beforeGone) {
					t.Error("something was written")
				}
				if now := p.saved(t, s.memoryOr(storeName, gone)); !now.Equal(secret) {
					t.Error("the secrets were written")
				}
				if name != "a copy in its place" {
					return
				}
				s.Close()
				s = place.open(t)
				s.Start()
				_, err = s.named("work").Token(t.Context(), 0)
				do(t, err)
				if n := e.api.Stats().Reuse; n != 0 {
					t.Errorf("%d spent tokens used again", n)
				}
			})
		}
	}
}

// changes are the calls that spend a refresh token or write, except those that end a
// login.
func changes(s *Set, p *Profile, other Adoption) map[string]func() error {
	unproved := other
	unproved.AccessToken = store.Secret{}
	with := func(a Adoption, storeName string) Adoption {
		a.Store = storeName
		return a
	}
	adopt := func(name string, a Adoption) func() error {
		return func() error {
			_, err := s.Adopt(name, a)
			return err
		}
	}
	return map[string]func() error{
		"refresh":                      func() error { return p.Refresh(p.set.ctx) },
		"login":                        adopt("work", other),
		"login elsewhere":              adopt("work", with(other, "memory")),
		"login of another":             adopt("other", other),
		"login that costs an exchange": adopt("work", unproved),
		"check": func() error {
			_, err := s.CheckAdoption("work", with(other, "memory"))
			return err
		},
		"note": func() error {
			_, err := s.NoteKey("work", Adoption{URLs: other.URLs, ClientID: "x"})
			return err
		},
		"move": func() error {
			if p.record().Store == "file" {
				return p.set.Misplaced() // it is there already
			}
			return p.Move("file")
		},
		"a token of nobody": func() error {
			_, err := s.candidate("nobody").Token(p.set.ctx, 0)
			return err
		},
	}
}

// A lock and a logout stop tokens whatever the disk says, and say that the next
// daemon knows nothing of it. An unlock that could not be kept is none.
func TestALockAndALogoutBesideTheStateDirectory(t *testing.T) {
	for what, tt := range map[string]struct {
		do         func(*Set) error
		text, hint string
	}{
		"lock":   {func(s *Set) error { return s.Lock(false) }, "locked until the daemon restarts: ", "restart it, then: bloq-agent lock"},
		"logout": {func(s *Set) error { return s.named("work").Forget() }, "work: logged out, but the daemon logs in again when it restarts: ", "restart it, then: bloq-agent logout --profile work"},
		"unlock": {func(s *Set) error { _ = s.Lock(false); return s.Unlock(nil) }, "unlocking: ", "restart it, then: bloq-agent unlock"},
	} {
		place := newPlace(t)
		s := place.open(t)
		p := s.serve(t, "work", "file", "refresh token")
		dir, gone := place.state(), filepath.Join(place.dir, "gone")
		do(t, errors.Join(exec.Command("cp", "-a", dir, gone).Run(), os.RemoveAll(dir), os.Rename(gone, dir)))
		before := files(t, dir)
		err := tt.do(s)
		if problem := new(Problem); !errors.As(err, &problem) || !strings.HasPrefix(problem.Detail, tt.text) || problem.Hint != tt.hint {
			t.Errorf("%s: %+v", what, err)
		}
		if _, err := p.Token(t.Context(), 0); err == nil {
			t.Errorf("%s: a token is served", what)
		}
		if !maps.Equal(files(t, dir), before) {
			t.Errorf("%s: something was written", what)
		}
	}
}

// files are the contents of those in dir, by name.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	list, err := filepath.Glob(dir + "/*")
	do(t, err)
	contents := map[string]string{}
	for _, path := range list {
		b, err := os.ReadFile(path)
		do(t, err)
		contents[path] = string(b)
	}
	return contents
}

// memoryOr is the store of that name, with the files that are in dir.
func (s *Set) memoryOr(name, dir string) store.Store {
	if name == "memory" {
		return s.stores.Memory
	}
	return store.NewFile(dir, s.stores.File.Key())
}
