//go:build linux

package sim

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"
)

// A refreshToken is one that the endpoint gave out.
type refreshToken struct {
	login    *login
	issued   time.Time     // by true time
	next     *refreshToken // its successor
	rotated  time.Time     // when next was given out first; zero for never
	revoked  bool
	replaced bool // it took the place of another
	// readBy is the daemon that has read the answer with this token, and readAt when.
	readBy *instance
	readAt time.Time
}

// An accessToken is one that the endpoint gave out.
type accessToken struct {
	login  *login
	expiry time.Time // by true time
}

// expired reports whether t has come to its own end.
func (t *refreshToken) expired(w *world, now time.Time) bool {
	return now.Sub(t.issued) >= w.refreshTTL
}

type grantRequest struct {
	GrantType, ClientID, RefreshToken string
}

func parseGrant(body []byte) (q grantRequest) {
	_ = json.Unmarshal(body, &q) // an empty one otherwise
	return q
}

// claims are what a token says of itself, unchecked; empty for what is no token.
func claims(token string) (c struct {
	ID string `json:"jti"`
},
) {
	if parts := strings.Split(token, "."); len(parts) == 3 {
		if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(b, &c)
		}
	}
	return c
}

// spender finds the login that q is for, and the refresh token that it uses, if any.
func (e *endpoint) spender(q grantRequest) (*login, *refreshToken) {
	e.w.model.Lock()
	defer e.w.model.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if q.RefreshToken != "" {
		t := e.refresh[claims(q.RefreshToken).ID]
		if t == nil {
			return nil, nil
		}
		return t.login, t
	}
	return e.w.loginOf(q.ClientID), nil
}

func (e *endpoint) isRevoked(t *refreshToken) bool {
	e.w.model.Lock()
	defer e.w.model.Unlock()
	return t.revoked
}

// gaveOut records a grant, and returns its refresh token. The caller holds e.mu.
func (e *endpoint) gaveOut(l *login, used *refreshToken, access, refresh string) *refreshToken {
	now := time.Now()
	if l == nil {
		return nil
	}
	e.access[access] = accessToken{l, e.w.clocks.true().Add(e.w.ttl + time.Second)}
	if refresh == "" {
		return nil
	}
	id := claims(refresh).ID
	t := e.refresh[id]
	if t == nil {
		t = &refreshToken{login: l, issued: e.w.clocks.true()}
		e.refresh[id] = t
		l.tokens = append(l.tokens, t)
		e.secrets = append(e.secrets, refresh)
	}
	if used != nil && used != t {
		if used.rotated.IsZero() {
			used.rotated = now
		}
		used.next = t
		t.replaced = true
	}
	return t
}

// byPerson calls the API as a person's command does. The network always works.
func (e *endpoint) byPerson(method, path string, auth func(*http.Request), body string) map[string]string {
	r := httptest.NewRequest(method, "http://127.0.0.1:1"+path, strings.NewReader(body))
	if auth != nil {
		auth(r)
	}
	rec := httptest.NewRecorder()
	e.api.ServeHTTP(rec, r)
	var out map[string]string
	if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil || rec.Code != http.StatusOK {
		panic(fmt.Sprintf("%s %s: %d %s", method, path, rec.Code, rec.Body))
	}
	return out
}

// keys makes client keys, and exchanges them for tokens, as `bloq-agent login` does.
func (e *endpoint) keys(l *login) (access, refresh string) {
	account := e.byPerson("POST", "/auth", func(r *http.Request) { r.SetBasicAuth(e.api.Email(), e.api.Password()) }, "")
	key := e.byPerson("POST", "/users/me/client-keys", func(r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+account["accessToken"])
	}, "")
	l.clientID, l.clientSecret = key["clientId"], key["clientSecret"]
	g := e.byPerson("POST", "/auth/token", nil, fmt.Sprintf(`{"grantType":"clientCredentials","clientId":%q,"clientSecret":%q}`, l.clientID, l.clientSecret))
	e.mu.Lock()
	defer e.mu.Unlock()
	e.secrets = append(e.secrets, l.clientSecret)
	t := e.gaveOut(l, nil, g["accessToken"], g["refreshToken"])
	t.readAt = time.Now() // by the command, and no daemon
	return g["accessToken"], g["refreshToken"]
}
