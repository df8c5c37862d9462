package profile

import (
	"bytes"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/store"
)

// add is a login of which the person has the refresh token alone.
func (e *endpoint) add(t *testing.T, storeName string) Adoption {
	a := e.mint(t)
	a.AccessToken, a.Store = store.Secret{}, storeName
	return a
}

// An adoption that spends the refresh token keeps what the endpoint makes of it,
// whatever else goes wrong.
func TestAnAdoptionKeepsARotatedToken(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil   func(answer map[string]any)
		block   bool // the store cannot be written after the endpoint has answered
		warning string
	}{
		"no access token":           {func(a map[string]any) { delete(a, "accessToken") }, false, "not proved yet"},
		"an empty access token":     {func(a map[string]any) { a["accessToken"] = "" }, false, "not proved yet"},
		"a store that is full then": {nil, true, "not saved yet"},
		"both":                      {func(a map[string]any) { a["accessToken"] = 7 }, true, "not saved yet"},
	} {
		for _, again := range []bool{false, true} { // the profile has a login already
			if tt.block && !again {
				continue // its file has no name yet
			}
			e := newEndpoint(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
			place := newPlace(t)
			s := place.open(t)
			mend := func() {}
			if again {
				p := s.logIn(t, e, "work", "file")
				if tt.block {
					mend = block(t, filepath.Join(place.state(), p.record().ID+".age"))
				}
			}
			a := e.add(t, "file")
			if tt.spoil != nil {
				e.spoil.Store(&tt.spoil)
			}
			out, err := s.Adopt("work", a)
			if err != nil || !strings.Contains(out.Warning, tt.warning) {
				t.Fatalf("%s, again %v: %v, %q", name, again, err, out.Warning)
			}
			p := s.named("work")
			if p.state.Load().login.holds(a.RefreshToken.Reveal()) {
				t.Errorf("%s, again %v: the new token is dropped", name, again)
			}
			mend()
			place.until(t, "it is saved", func() bool {
				item, err := s.stores.File.Load(t.Context(), p.record().ID)
				return err == nil && p.state.Load().login.holds(item.RefreshToken.Reveal()) && p.record().Rotates
			})
			if _, err := p.Token(t.Context(), 0); err != nil {
				t.Errorf("%s, again %v: %v", name, again, err)
			}
			if n := e.api.Stats().Reuse; n != 0 {
				t.Errorf("%s, again %v: %d spent tokens used again", name, again, n)
			}
		}
	}
}

// An adoption marks its exchange as every exchange does: before the request, and
// until it is known what became of it.
func TestAnAdoptionMarksItsExchange(t *testing.T) {
	e := newEndpoint(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	place := newPlace(t)
	s := place.open(t)
	p := s.logIn(t, e, "work", "file")
	marked := func() bool { _, is := markOf(s.records.Dir(), p.record()).found(); return is }
	during := false
	look := func(map[string]any) { during = marked() }
	e.spoil.Store(&look)
	_, err := s.Adopt("work", e.add(t, "file"))
	do(t, err)
	if !during || marked() {
		t.Errorf("marked during the exchange %v, after it %v", during, marked())
	}
	a := e.add(t, "file")
	do(t, e.api.AddFault(sandbox.Fault{Route: "POST /auth/token", Kind: "status", Status: 504}))
	if _, err := s.Adopt("work", a); err != nil || !marked() {
		t.Errorf("with a lost answer: %v, marked %v", err, marked())
	}
}

// What client keys buy may lack a part. No refresh token is lost over it: not the
// one that was rotated beside, nor the one that was bought.
func TestWhatTheKeysBuyMayLackAPart(t *testing.T) {
	access, expiring := jwtOf(t, map[string]any{"exp": 4e9}), jwtOf(t, map[string]any{"iat": 1, "exp": 2})
	for name, tt := range map[string]struct {
		status          int // of the refresh
		refresh, bought string
		want            string
	}{
		"successor without a refresh token":              {200, `{"accessToken":"` + access + `","refreshToken":"rotated"}`, `{"accessToken":"` + access + `"}`, "rotated"},
		"successor without an access token":              {200, `{"accessToken":"` + access + `","refreshToken":"rotated"}`, `{"refreshToken":"bought"}`, "rotated"},
		"in the place of a dead one, no access token":    {400, `{"error":"invalid_grant"}`, `{"accessToken":"","refreshToken":"bought"}`, "bought"},
		"in the place of a dead one, no refresh token":   {400, `{"error":"invalid_grant"}`, `{"accessToken":"` + access + `"}`, expiring},
		"in the place of a dead one, nothing is missing": {400, `{"error":"invalid_grant"}`, `{"accessToken":"` + access + `","refreshToken":"bought"}`, "bought"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var ready atomic.Bool
			rig := newRigBehind(t, sandbox.Config{}, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !ready.Load() {
						h.ServeHTTP(w, r)
						return
					}
					asked, _ := io.ReadAll(r.Body)
					if bytes.Contains(asked, []byte("clientCredentials")) {
						_, _ = io.WriteString(w, tt.bought)
						return
					}
					w.WriteHeader(tt.status)
					_, _ = io.WriteString(w, tt.refresh)
				})
			})
			rig.keep(t)
			ready.Store(true)
			rig.log.item.RefreshToken = store.NewSecret([]byte(expiring))
			_, err := rig.r.Refresh(t.Context())
			do(t, err)
			if !rig.log.holds([]byte(tt.want)) {
				t.Errorf("%s: the refresh token is %q", name, rig.log.item.RefreshToken.Reveal())
			}
		})
	}
}
