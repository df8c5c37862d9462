package profile

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"bloq-agent/accounts"
	"bloq-agent/accounts/sandbox"
	"bloq-agent/store"
)

// An endpoint is a sandbox on a real socket.
type endpoint struct {
	api  *sandbox.Server
	urls accounts.Endpoints
	// spoil, if set, changes what the next exchange of a refresh token answers.
	spoil atomic.Pointer[func(answer map[string]any)]
}

// ServeHTTP is the sandbox's, spoilt.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	asked, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(asked))
	spoil := e.spoil.Load()
	if spoil == nil || !bytes.Contains(asked, []byte(`"refreshToken"`)) {
		e.api.ServeHTTP(w, r)
		return
	}
	e.spoil.Store(nil)
	rec := httptest.NewRecorder()
	e.api.ServeHTTP(rec, r)
	answer := map[string]any{}
	_ = json.Unmarshal(rec.Body.Bytes(), &answer)
	(*spoil)(answer)
	body, _ := json.Marshal(answer)
	w.WriteHeader(rec.Code)
	_, _ = w.Write(body)
}

func newEndpoint(t *testing.T, config sandbox.Config) *endpoint {
	t.Helper()
	api, err := sandbox.New(config)
	do(t, err)
	e := &endpoint{api: api}
	srv := httptest.NewServer(e)
	t.Cleanup(func() {
		api.Close()
		srv.Close()
	})
	e.urls = accounts.FromAccountsURL(srv.URL)
	return e
}

// mint buys a login: a refresh token and an access token.
func (e *endpoint) mint(t *testing.T) Adoption {
	t.Helper()
	client, err := accounts.New(e.urls, accounts.Options{})
	do(t, err)
	account, err := client.Login(t.Context(), e.api.Email(), []byte(e.api.Password()))
	do(t, err)
	key, err := client.CreateKey(t.Context(), account.AccessToken)
	do(t, err)
	g, err := client.ClientCredentials(t.Context(), key.ID, key.Secret)
	do(t, err)
	return Adoption{
		URLs: e.urls, RefreshToken: store.NewSecret(g.RefreshToken), AccessToken: store.NewSecret(g.AccessToken), IssuedAt: g.IssuedAt,
	}
}

// spent is how many times a refresh token was sent to the endpoint.
func (e *endpoint) spent() int { return e.api.Stats().Grants["refreshToken"] }

// logIn adopts a new login. It spends no refresh token.
func (s *Set) logIn(t *testing.T, e *endpoint, name, storeName string) *Profile {
	t.Helper()
	a := e.mint(t)
	a.Store = storeName
	_, err := s.Adopt(name, a)
	do(t, err)
	return s.named(name)
}

func (s *Set) named(name string) *Profile {
	p, _ := s.Lookup(name)
	return p
}

func (p *Profile) saved(t *testing.T, st store.Store) store.Item {
	t.Helper()
	item, err := st.Load(t.Context(), p.record().ID)
	do(t, err)
	return item
}

// block keeps the file at path from being written, for root too. What it returns
// lets it again, as it was.
func block(t *testing.T, path string) (mend func()) {
	t.Helper()
	aside := path + ".aside"
	do(t, os.Rename(path, aside))
	do(t, os.MkdirAll(filepath.Join(path, "x"), 0o700))
	return func() {
		do(t, os.RemoveAll(path))
		do(t, os.Rename(aside, path))
	}
}
