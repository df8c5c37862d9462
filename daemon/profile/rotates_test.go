package profile

import (
	"path/filepath"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
)

// That an endpoint rotates is known after whatever becomes of the login: a refresh
// token is not spent then while its successor could not be saved.
func TestThatAnEndpointRotatesIsNotForgotten(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *place, *Set) *Set{
		"a move": func(t *testing.T, _ *place, s *Set) *Set { do(t, s.named("work").Move("file")); return s },
		"a reload": func(t *testing.T, _ *place, s *Set) *Set {
			do(t, s.named("work").replace(s.named("work").reconfigure))
			return s
		},
		"a lock": func(t *testing.T, _ *place, s *Set) *Set { do(t, s.Lock(false)); do(t, s.Unlock(nil)); return s },
		"a restart": func(t *testing.T, p *place, s *Set) *Set {
			kept, err := DecodeKept(s.Keep())
			do(t, err)
			s.Close()
			s = p.openWith(t, kept)
			s.Start()
			return s
		},
		"no new token": func(t *testing.T, _ *place, s *Set) *Set { return s },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEndpoint(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
			place := newPlace(t)
			s := place.open(t)
			p := s.logIn(t, e, "work", map[bool]string{true: "memory", false: "file"}[name == "a move"])
			do(t, p.Refresh(t.Context()))
			if !p.record().Rotates {
				t.Error("the record does not say so")
			}
			s = change(t, place, s)
			p = s.named("work")
			if name == "a lock" { // which leaves no access token to wait with
				_, err := p.Token(t.Context(), 0)
				do(t, err)
			}
			heldBack(t, e, p, filepath.Join(place.state(), p.record().ID+".age"))
		})
	}
}

// heldBack wants p to spend nothing while the file cannot be written.
func heldBack(t *testing.T, e *endpoint, p *Profile, file string) {
	t.Helper()
	before := e.spent()
	mend := block(t, file)
	if err := p.Refresh(t.Context()); err == nil || !strings.Contains(err.Error(), "not refreshing while the store cannot be written") {
		t.Errorf("with a store that cannot be written: %v", err)
	}
	if n := e.spent() - before; n != 0 {
		t.Errorf("%d refresh tokens spent that nobody could save", n)
	}
	mend()
}

// A record that cannot be written keeps nobody from knowing it, as long as the
// daemon runs.
func TestARecordThatCannotBeWrittenForgetsNothing(t *testing.T) {
	e := newEndpoint(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	place := newPlace(t)
	s := place.open(t)
	p := s.logIn(t, e, "work", "file")
	block(t, filepath.Join(place.state(), "profiles.json"))
	do(t, p.Refresh(t.Context()))
	if len(place.of(NotRecorded)) == 0 {
		t.Error("nothing tells that the record is not written")
	}
	do(t, p.replace(p.reconfigure))
	heldBack(t, e, p, filepath.Join(place.state(), p.record().ID+".age"))
}

// The first rotated token cannot be saved, and may be lost with the daemon. The
// next login need not learn it the same way.
func TestATokenThatIsNotSavedTellsThatTheEndpointRotates(t *testing.T) {
	e := newEndpoint(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	place := newPlace(t)
	p := place.open(t).logIn(t, e, "work", "file")
	block(t, filepath.Join(place.state(), p.record().ID+".age"))
	do(t, p.Refresh(t.Context()))
	if p.state.Load().unsavedErr() == nil {
		t.Fatal("it was saved")
	}
	if !p.record().Rotates {
		t.Error("the record does not say so")
	}
}
