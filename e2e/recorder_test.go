package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"

	"bloq-agent/accounts/sandbox"
)

// A recorder knows every secret that the sandbox has ever given out: they are
// the canaries.
type recorder struct {
	mu   sync.Mutex
	seen map[string]string // :: secret → what it is
}

func (r *recorder) add(what, secret string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if secret != "" {
		r.seen[secret] = what
	}
}

func (r *recorder) all() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]string{}
	for k, v := range r.seen {
		out[k] = v
	}
	return out
}

func (r *recorder) serve(api *sandbox.Server, w http.ResponseWriter, req *http.Request) {
	kept := httptest.NewRecorder()
	rec := &hijackable{ResponseRecorder: kept, under: w}
	api.ServeHTTP(rec, req)
	if rec.hijacked {
		return
	}
	for k, v := range kept.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(kept.Code)
	body, _ := io.ReadAll(kept.Body)
	var secrets struct{ AccessToken, RefreshToken, ClientSecret string }
	if json.Unmarshal(body, &secrets) == nil {
		r.add("token of "+req.URL.Path, secrets.AccessToken)
		r.add("refresh token", secrets.RefreshToken)
		r.add("client secret", secrets.ClientSecret)
	}
	_, _ = w.Write(body)
}

// hijackable lets the sandbox's faults break the real connection.
type hijackable struct {
	*httptest.ResponseRecorder
	under    http.ResponseWriter
	hijacked bool
}

// Hijack is for http.ResponseController.
func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h.hijacked = true
	return http.NewResponseController(h.under).Hijack()
}

func newLines(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	return s
}
