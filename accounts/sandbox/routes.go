package sandbox

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

const maxBody = 64 << 10

// routes are the API's. Each is counted under its pattern.
func (s *Server) routes() *http.ServeMux {
	mux, my := http.NewServeMux(), users{s}
	for pattern, h := range map[string]http.HandlerFunc{
		"POST /auth":                        s.handleLogin, // as Bloq's API documents spell it
		"POST /auth/login":                  s.handleLogin, // as its "Authentication" page does
		"POST /auth/token":                  s.handleToken,
		"POST /users/me/client-keys":        my.account(my.createKey),
		"GET /users/me/client-keys":         my.account(my.listKeys),
		"DELETE /users/me/client-keys/{id}": my.account(my.deleteKey),
		"GET /users/me":                     my.account(my.profile),
		"GET /{$}":                          up,
		"GET /nodes/v1/status":              s.nodesStatus,
	} {
		mux.HandleFunc(pattern, s.counted(strings.TrimSuffix(pattern, "{$}"), h))
	}
	mux.HandleFunc("/", s.counted("other", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "NotFound", "no such route")
	}))
	mux.HandleFunc("GET /_sandbox/stats", control{s}.writeStats)
	mux.HandleFunc("POST /_sandbox/faults", control{s}.addFault)
	mux.HandleFunc("DELETE /_sandbox/faults", control{s}.clearFaults)
	return mux
}

// ServeHTTP serves the API, with the date of its own clock.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Date", s.config.Now().UTC().Format(http.TimeFormat))
	s.mux.ServeHTTP(w, r)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client has gone if this fails
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	answer(w, status, map[string]string{"code": code, "message": message})
}

func internal(w http.ResponseWriter, err error) {
	refuse(w, http.StatusInternalServerError, "InternalError", err.Error())
}

func up(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *Server) handleLogin(w http.ResponseWriter, r *http.Request) {
	user, password, ok := r.BasicAuth()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok || user != s.state.Email && user != s.state.UserID || !sameHash(password, s.state.Password) {
		refuse(w, http.StatusUnauthorized, "Unauthorized", "wrong user or password")
		return
	}
	token, err := s.mint(kindAccount, s.state.UserID, randomHex(16), s.config.AccountTTL)
	if err != nil {
		internal(w, err)
		return
	}
	answer(w, http.StatusOK, map[string]string{"accessToken": token})
}

// tokenRequest is the body of both grants.
type tokenRequest struct {
	GrantType    string `json:"grantType"`
	ClientID     string `json:"clientId"`
	ClientSecret string `json:"clientSecret"`
	RefreshToken string `json:"refreshToken"`
}

func parseTokenRequest(body []byte) (tokenRequest, error) {
	var t tokenRequest
	if err := json.Unmarshal(body, &t); err != nil {
		return t, errors.New("body is not JSON")
	}
	if t.GrantType != grantCredentials && t.GrantType != grantRefresh {
		return t, errors.New("grantType must be clientCredentials or refreshToken")
	}
	return t, nil
}

const (
	grantCredentials = "clientCredentials"
	grantRefresh     = "refreshToken"
)

func (s *Server) handleToken(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest", "body is too long or cut")
		return
	}
	t, err := parseTokenRequest(body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadRequest", err.Error())
		return
	}
	if t.GrantType == grantCredentials {
		s.clientCredentials(w, t)
		return
	}
	s.refresh(w, t)
}

func (s *Server) clientCredentials(w http.ResponseWriter, t tokenRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.state.Clients[t.ClientID]
	if c == nil || !sameHash(t.ClientSecret, c.Secret) {
		refuse(w, http.StatusUnauthorized, "Unauthorized", "wrong client ID or client secret")
		return
	}
	id := randomHex(16)
	s.state.Refresh[id] = &refreshToken{Family: id}
	refreshToken, err := s.mint(kindRefresh, t.ClientID, id, s.config.RefreshTTL)
	if err == nil {
		err = s.save()
	}
	s.grant(w, t.ClientID, refreshToken, err)
}

// refresh answers a dead token as Bloq probably does: a bare 401, without an
// OAuth error.
func (s *Server) refresh(w http.ResponseWriter, t tokenRequest) {
	c, err := s.verify(t.RefreshToken)
	if err != nil || c.Kind != kindRefresh {
		refuse(w, http.StatusUnauthorized, "Unauthorized", errRefused.Error())
		return
	}
	next, err := s.spend(c.ID)
	if errors.Is(err, errRefused) {
		refuse(w, http.StatusUnauthorized, "Unauthorized", errRefused.Error())
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	refreshToken := ""
	if err == nil && next != c.ID {
		refreshToken, err = s.mint(kindRefresh, c.Subject, next, s.config.RefreshTTL)
	}
	s.grant(w, c.Subject, refreshToken, err)
}

// grant answers with an access token, and a refresh token if there is one.
// The caller holds s.mu.
func (s *Server) grant(w http.ResponseWriter, clientID, refreshToken string, err error) {
	var access string
	if err == nil {
		access, err = s.mint(kindAccess, clientID, randomHex(16), s.config.AccessTTL)
	}
	if err != nil {
		internal(w, err)
		return
	}
	body := map[string]string{"accessToken": access}
	if refreshToken != "" {
		body["refreshToken"] = refreshToken
	}
	answer(w, http.StatusOK, body)
}

// users serves the routes of a user: /users/me and below.
type users struct{ *Server }

// account guards them. A Client Access Token is
// for Nodes and never for these.
func (s users) account(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := s.bearer(r)
		switch {
		case err != nil:
			refuse(w, http.StatusUnauthorized, "Unauthorized", errToken.Error())
		case c.Kind != kindAccount:
			refuse(w, http.StatusForbidden, "Forbidden", "an account token is needed")
		default:
			h(w, r)
		}
	}
}

func (s *Server) nodesStatus(w http.ResponseWriter, r *http.Request) {
	c, err := s.bearer(r)
	if err != nil || c.Kind == kindRefresh {
		refuse(w, http.StatusUnauthorized, "Unauthorized", errToken.Error())
		return
	}
	answer(w, http.StatusOK, map[string]string{"status": "ok", "kind": c.Kind, "subject": c.Subject})
}

func (s users) profile(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer(w, http.StatusOK, map[string]string{"id": s.state.UserID, "displayName": "Sandbox", "email": s.state.Email})
}

// createKey shows the secret once and keeps its hash.
func (s users) createKey(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, secret := randomHex(20), randomHex(40)
	created := s.config.Now().UTC()
	s.state.Clients[id] = &client{Secret: hash(secret), Created: created}
	if err := s.save(); err != nil {
		internal(w, err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"clientId": id, "clientSecret": secret, "createdAt": created})
}

func (s users) listKeys(w http.ResponseWriter, _ *http.Request) {
	type key struct {
		ID        string    `json:"id"`
		CreatedAt time.Time `json:"createdAt"`
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]key, 0, len(s.state.Clients))
	for id, c := range s.state.Clients {
		list = append(list, key{id, c.Created})
	}
	slices.SortFunc(list, func(a, b key) int { return a.CreatedAt.Compare(b.CreatedAt) })
	answer(w, http.StatusOK, list)
}

// deleteKey leaves the refresh tokens alone that the keys have bought. What
// Bloq does is not known, and a client must not depend on either.
func (s users) deleteKey(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.PathValue("id")
	if s.state.Clients[id] == nil {
		refuse(w, http.StatusNotFound, "NotFound", "no such client keys")
		return
	}
	delete(s.state.Clients, id)
	if err := s.save(); err != nil {
		internal(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
