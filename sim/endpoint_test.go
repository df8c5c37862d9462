//go:build linux

package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"time"

	"bloq-agent/accounts/sandbox"
)

// An endpoint is the Accounts API as the machine sees it over a bad network, and
// the ledger of all that it ever gave out.
type endpoint struct {
	w     *world
	api   *sandbox.Server
	http  http.Server
	conns chan net.Conn // dialled and not accepted yet
	shut  chan struct{} // closed by Close
	once  sync.Once

	mu        sync.Mutex
	down      bool
	slow      time.Duration
	drop      int                      // how many requests will be lost on their way
	lose      int                      // how many replies will be lost
	spoil     int                      // how many replies will come without their access token
	faults    []sandbox.Fault          // what it answers next instead
	refresh   map[string]*refreshToken // by jti
	access    map[string]accessToken
	underWay  map[*http.Request]*login // exchanges with a refresh token
	arrivedAt map[string][]time.Time   // of requests, by daemon and login
	secrets   []string                 // that must not be seen anywhere
}

func newEndpoint(w *world, c sandbox.Config) *endpoint {
	api, err := sandbox.New(c)
	if err != nil {
		panic(err)
	}
	e := &endpoint{
		w: w, api: api, conns: make(chan net.Conn), shut: make(chan struct{}),
		refresh: map[string]*refreshToken{}, access: map[string]accessToken{}, underWay: map[*http.Request]*login{},
		arrivedAt: map[string][]time.Time{},
	}
	e.http = http.Server{
		Handler: e,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, wireKey{}, c)
		},
	}
	go func() { _ = e.http.Serve(e) }()
	return e
}

func (e *endpoint) end() {
	e.api.Close()
	_ = e.http.Close()
}

// ServeHTTP has the sandbox answer, over the network as it is now.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(wireKey{}).(*wire)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	q := parseGrant(body)
	l, used := e.spender(q)
	e.w.pause("request", l.title(), 30*time.Millisecond)
	e.mu.Lock()
	slow, dropped, fault := e.slow, take(&e.drop), e.takeFault()
	e.mu.Unlock()
	time.Sleep(slow / 2) // a client that hangs up does not undo its request
	if dropped {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	e.checkExchange(r, c, l, used)
	defer e.exchangeEnded(r)
	if fault != nil {
		e.w.note("endpoint: %s answered with %s %d", l.title(), fault.Kind, fault.Status)
		e.mu.Lock()
		err := e.api.AddFault(*fault)
		e.mu.Unlock()
		if err != nil {
			panic(err)
		}
		e.api.ServeHTTP(w, r)
		return
	}
	status, answer := e.answer(r, c, l, used)
	e.w.pause("reply", l.title(), 30*time.Millisecond)
	time.Sleep(slow - slow/2)
	e.mu.Lock()
	lost := take(&e.lose)
	e.mu.Unlock()
	e.w.note("endpoint: %s of %s: %d%s", q.GrantType, l.title(), status, map[bool]string{true: ", and the reply is lost"}[lost])
	if lost {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Date", e.w.clocks.true().UTC().Format(http.TimeFormat))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

func take(n *int) bool {
	if *n == 0 {
		return false
	}
	*n--
	return true
}

func (e *endpoint) takeFault() *sandbox.Fault {
	if len(e.faults) == 0 {
		return nil
	}
	f := e.faults[0]
	e.faults = e.faults[1:]
	f.Route, f.Times = "POST /auth/token", 1
	return &f
}

// answer has the sandbox answer, and records what it gave out.
func (e *endpoint) answer(r *http.Request, c *wire, l *login, used *refreshToken) (int, []byte) {
	if used != nil && e.isRevoked(used) {
		return http.StatusUnauthorized, []byte(`{"code":"Unauthorized","message":"refresh token is not accepted"}`)
	}
	rec := httptest.NewRecorder()
	e.api.ServeHTTP(rec, r)
	body := rec.Body.Bytes()
	if rec.Code != http.StatusOK {
		e.w.model.Lock()
		defer e.w.model.Unlock()
		// The daemon died while its request was on the way, and the next daemon has used the
		// token meanwhile. The endpoint takes that for theft.
		if c.from.dead() && used != nil && used.next != nil {
			for _, t := range l.tokens {
				t.revoked = true
			}
		}
		return rec.Code, body
	}
	var g map[string]string
	if json.Unmarshal(body, &g) != nil {
		return rec.Code, body
	}
	e.w.model.Lock()
	defer e.w.model.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	c.grant, c.until = l, c.sent.Add(e.w.ttl)
	c.reply = e.gaveOut(l, used, g["accessToken"], g["refreshToken"])
	if c.from.dead() && l != nil && used != nil && used.next != nil {
		l.deadBecause = "on the way when the daemon died"
	}
	if take(&e.spoil) {
		c.grant = nil
		g["accessToken"] = ""
		body, _ = json.Marshal(g)
	}
	return rec.Code, body
}
