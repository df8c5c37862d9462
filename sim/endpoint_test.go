package sim

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
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
	conns chan net.Conn
	shut  chan struct{}
	once  sync.Once

	mu      sync.Mutex
	down    bool
	slow    time.Duration
	lose    int // replies that will be lost, after the endpoint has done its part
	drop    int // requests that will be lost before it
	spoil   int // answers that lose their access token
	faults  []sandbox.Fault
	refresh map[string]*refreshToken // by jti
	access  map[string]accessToken
	asked   map[string]int // by what: for jitter
	flying  map[*http.Request]*login
	times   map[string][]time.Time // of requests, by daemon and login
	secrets []string               // that must not be seen anywhere
}

// A refreshToken is one that the endpoint gave out.
type refreshToken struct {
	login *login
	// rotated is when another one took its place, by true time; zero if none did.
	rotated time.Time
	next    *refreshToken
	issued  time.Time
	revoked bool
	// reached is the daemon that has read the answer with this token, and when.
	reached *instance
	at      time.Time
}

type accessToken struct {
	login  *login
	expiry time.Time // by true time
}

func newEndpoint(w *world, c sandbox.Config) *endpoint {
	api, err := sandbox.New(c)
	if err != nil {
		panic(err)
	}
	e := &endpoint{
		w: w, api: api, conns: make(chan net.Conn), shut: make(chan struct{}),
		refresh: map[string]*refreshToken{}, access: map[string]accessToken{}, asked: map[string]int{}, flying: map[*http.Request]*login{},
		times: map[string][]time.Time{},
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

type wireKey struct{}

// Accept, Close and Addr make the endpoint a listener.
func (e *endpoint) Accept() (net.Conn, error) {
	select {
	case c := <-e.conns:
		return c, nil
	case <-e.shut:
		return nil, net.ErrClosed
	}
}

// Close ends it.
func (e *endpoint) Close() error {
	e.once.Do(func() { close(e.shut) })
	return nil
}

// Addr is of no use.
func (e *endpoint) Addr() net.Addr { return &net.UnixAddr{Name: "endpoint"} }

func (e *endpoint) end() {
	e.api.Close()
	_ = e.http.Close()
}

// A wire is the endpoint's side of one connection.
type wire struct {
	net.Conn
	from  *instance
	began time.Time
	sent  time.Time     // the same by true time
	grant *login        // that is given an access token
	until time.Time     // by true time: its end, as the daemon counts it: from the request
	reply *refreshToken // that the next write takes to the daemon
	e     *endpoint
}

// Write returns when the daemon has read it all.
func (c *wire) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.e.w.model.Lock()
	defer c.e.w.model.Unlock()
	if err != nil || c.from.dead() {
		return n, err
	}
	if c.grant != nil && time.Since(c.e.w.slept) > time.Minute { // else it counts from before the sleep
		c.grant.freshIn, c.grant.fresh = c.from, c.until
	}
	if t := c.reply; t != nil {
		t.reached, t.at, c.reply = c.from, time.Now(), nil
		t.login.received(t)
	}
	return n, err
}

// dial is the network of one daemon.
func (e *endpoint) dial(i *instance) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		began, sent := time.Now(), e.w.clocks.true()
		e.w.pause("dial", "", 3*time.Millisecond)
		e.mu.Lock()
		down := e.down
		e.mu.Unlock()
		if down || i.dead() {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errRefused}
		}
		theirs, ours := net.Pipe()
		i.opened(theirs)
		select {
		case e.conns <- &wire{Conn: ours, from: i, e: e, began: began, sent: sent}:
			return theirs, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-e.shut:
			return nil, net.ErrClosed
		}
	}
}

var errRefused = fmt.Errorf("connection refused")

// ServeHTTP is the sandbox's, behind the network's whims.
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
	e.wait(r, slow/2)
	if dropped {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	e.check(r, c, l, used)
	defer e.left(r)
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
	e.wait(r, slow-slow/2)
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

// wait is a slow network. Whoever hangs up does not undo a request.
func (e *endpoint) wait(r *http.Request, d time.Duration) {
	if d > 0 {
		time.Sleep(d)
	}
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

type grantRequest struct {
	GrantType, ClientID, RefreshToken string
}

func parseGrant(body []byte) (q grantRequest) {
	_ = json.Unmarshal(body, &q) // an empty one otherwise
	return q
}

// claims are what a token says of itself.
func claims(token string) (c struct {
	ID      string `json:"jti"`
	Subject string `json:"sub"`
	Expiry  int64  `json:"exp"`
},
) {
	if parts := strings.Split(token, "."); len(parts) == 3 {
		if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(b, &c)
		}
	}
	return c
}

// spender finds the login that q is of.
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

// answer has the sandbox answer, and writes down what it gave out.
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
		if c.from.dead() && used != nil && used.next != nil { // a second use, that nobody could help
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
		l.spent = "on the way when the daemon died"
	}
	if take(&e.spoil) {
		c.grant = nil
		g["accessToken"] = ""
		body, _ = json.Marshal(g)
	}
	return rec.Code, body
}

func (e *endpoint) isRevoked(t *refreshToken) bool {
	e.w.model.Lock()
	defer e.w.model.Unlock()
	return t.revoked
}

// gaveOut writes down a grant. The caller holds e.mu.
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
		l.sawRotation(now)
	}
	return t
}

// left ends what check began.
func (e *endpoint) left(r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.flying, r)
}

// byPerson calls the API as a person's command does, over a network that works.
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

// keys makes client keys, and what they buy.
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
	t.reached, t.at = nil, time.Now()
	return g["accessToken"], g["refreshToken"]
}
