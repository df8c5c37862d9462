package profile

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"bloq-agent/accounts"
	"bloq-agent/accounts/sandbox"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

const unusableSentence = "the endpoint sent a new refresh token that cannot be used (it holds a character that no header may hold), so the one before is used again"

// The access token beside a refresh token that cannot be used is served. People read
// why the login may end, over a move and a reload too, and why it has ended.
func TestARefreshTokenThatCannotBeUsedIsRefusedAlone(t *testing.T) {
	for _, strict := range []bool{false, true} {
		e := newEndpoint(t, sandbox.Config{Rotation: sandbox.Rotation{On: strict}})
		place := newPlace(t)
		s := place.open(t)
		p := s.logIn(t, e, "work", "memory")
		spoil := func(a map[string]any) { a["refreshToken"] = "a\nb" }
		e.spoil.Store(&spoil)
		do(t, p.Refresh(t.Context()))
		if got, err := p.Token(t.Context(), 0); err != nil || got.Generation != 2 || got.Stale {
			t.Errorf("the new access token is not served: %v, %v", got, err)
		}
		told := place.of(Unusable)
		if len(told) != 1 || !strings.Contains(told[0].Err.Error(), "no header may hold") {
			t.Errorf("told %v", told)
		}
		do(t, p.Move("file"))
		do(t, p.replace(p.reconfigure))
		if got := p.Status().Unusable; got != unusableSentence {
			t.Errorf("the status says %q", got)
		}
		_ = p.Refresh(t.Context())
		status := p.Status()
		if !strict { // the endpoint still takes the old one
			if status.Unusable != "" || status.TokenProblem != nil {
				t.Errorf("it is used again: %q, %v", status.Unusable, status.TokenProblem)
			}
			continue
		}
		const want = "; the endpoint had sent a new refresh token that cannot be used: it holds a character that no header may hold"
		if err := status.TokenProblem; err == nil || status.Snapshot.Class != refresher.Refused || !strings.Contains(err.Error(), want) {
			t.Errorf("the status says %v", err)
		}
	}
}

// An adoption that spends the refresh token warns of it.
func TestAnAdoptionTellsOfARefreshTokenThatCannotBeUsed(t *testing.T) {
	e := newEndpoint(t, sandbox.Config{})
	s := newSet(t)
	a := e.add(t, "memory")
	spoil := func(answer map[string]any) { answer["refreshToken"] = "a\nb" }
	e.spoil.Store(&spoil)
	out, err := s.Adopt("work", a)
	do(t, err)
	p := s.named("work")
	if got := p.Status().Unusable; out.Warning != unusableSentence || got != unusableSentence || !p.state.Load().login.holds(a.RefreshToken.Reveal()) {
		t.Errorf("warned %q, the status says %q", out.Warning, got)
	}
}

// With client keys, the first refusal after it buys another, and what they buy is
// judged in the same way.
func TestTheKeysHelpAfterARefreshTokenThatCannotBeUsed(t *testing.T) {
	bought, told := `{"accessToken":"opaque","refreshToken":7}`, 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, r.ContentLength)
		_, _ = r.Body.Read(b)
		switch {
		case strings.Contains(string(b), "clientCredentials"):
			_, _ = w.Write([]byte(bought))
		case told == 0:
			_, _ = w.Write([]byte(`{"accessToken":"opaque","refreshToken":"\u0007"}`))
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer srv.Close()
	client, err := accounts.New(accounts.FromAccountsURL(srv.URL), accounts.Options{})
	do(t, err)
	l := newTestLogin(client, store.NewMemory(), store.Item{
		RefreshToken: store.NewSecret([]byte("first")), ClientID: "id", ClientSecret: store.NewSecret([]byte("secret")),
	})
	var kinds []EventKind
	l.hooks.tell = func(kind EventKind, _ error) { kinds, told = append(kinds, kind), told+1 }
	for range 2 {
		if g, err := l.exchange(t.Context()); err != nil || string(g.AccessToken) != "opaque" || g.RefreshToken != nil {
			t.Errorf("%v, %v", g, err)
		}
	}
	if len(kinds) != 2 || kinds[0] != Unusable || kinds[1] != NotBought {
		t.Errorf("told %v", kinds)
	}
	bought = `{"accessToken":"opaque","refreshToken":"second"}`
	if g, err := l.exchange(t.Context()); err != nil || string(g.RefreshToken) != "second" || l.last().unusable != nil {
		t.Errorf("%v, %v, %v", g, err, l.last().unusable)
	}
}
