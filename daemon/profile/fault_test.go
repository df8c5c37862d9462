package profile

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/accounts/sandbox"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

// A pipeNet is a network in virtual time: real HTTP over net.Pipe, since a real
// socket would freeze the bubble.
type pipeNet struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	mu     sync.Mutex
	dialed []string    // addresses
	asked  []time.Time // calls of the token endpoint
	refuse bool
	// onDial, if set, is called before each connection and may refuse it.
	onDial func() (refuse bool)
}

func (p *pipeNet) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipeNet) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipeNet) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipeNet) dial(ctx context.Context, _, address string) (net.Conn, error) {
	p.mu.Lock()
	p.dialed = append(p.dialed, address)
	p.asked = append(p.asked, time.Now())
	refuse, onDial := p.refuse, p.onDial
	p.mu.Unlock()
	if refuse || onDial != nil && onDial() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipeNet) setRefuse(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

func (p *pipeNet) setOnDial(f func() bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onDial = f
}

func (p *pipeNet) addresses() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.dialed)
}

// forget is for what came before the test.
func (p *pipeNet) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked, p.dialed = nil, nil
}

func (p *pipeNet) times() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// A rig is a refresher on a real client of a real sandbox, in virtual time.
type rig struct {
	net *pipeNet
	api *sandbox.Server
	r   *refresher.Refresher
	log *login
}

// newTestLogin is one of no profile, on an endpoint that was not seen to rotate.
func newTestLogin(client *accounts.Client, st store.Store, item store.Item) *login {
	return &login{
		client: client, store: st, id: store.NewID(), item: item, commit: committed,
		left: func() time.Duration { return 0 },
		hooks: hooks{
			check: func() error { return nil }, clock: refresher.RuntimeClock(), rotates: func() bool { return false },
			learned: func(learned) {}, tell: func(EventKind, error) {},
		},
	}
}

// newRig logs in, so that there is a good token, and runs until the test ends.
func newRig(t *testing.T, config sandbox.Config) *rig {
	t.Helper()
	return newRigBehind(t, config, func(h http.Handler) http.Handler { return h })
}

// newRigBehind is newRig with something between the client and the sandbox.
func newRigBehind(t *testing.T, config sandbox.Config, between func(http.Handler) http.Handler) *rig {
	t.Helper()
	if config.Now == nil {
		config.Now = time.Now
	}
	api, err := sandbox.New(config)
	if err != nil {
		t.Fatal(err)
	}
	p := &pipeNet{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: between(api)}
	go func() { _ = srv.Serve(p) }()
	client, err := accounts.New(accounts.FromAccountsURL("http://127.0.0.1:1"), accounts.Options{DialContext: p.dial})
	if err != nil {
		t.Fatal(err)
	}
	account, err := client.Login(t.Context(), api.Email(), []byte(api.Password()))
	if err != nil {
		t.Fatal(err)
	}
	key, err := client.CreateKey(t.Context(), account.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	g, err := client.ClientCredentials(t.Context(), key.ID, key.Secret)
	if err != nil {
		t.Fatal(err)
	}
	l := newTestLogin(client, store.NewMemory(), store.Item{RefreshToken: store.NewSecret(g.RefreshToken)})
	grant := grantOf(g)
	grant.RefreshToken = nil
	r := refresher.New(refresher.Config{Exchange: l.exchange, Save: l.save, Grant: &grant})
	l.begin(r, false, false)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	p.forget()
	t.Cleanup(func() {
		cancel()
		<-done
		api.Close()
		_ = srv.Close()
	})
	return &rig{net: p, api: api, r: r, log: l}
}

// A faultCase is one way in which the endpoint can fail.
type faultCase struct {
	name  string
	fault sandbox.Fault
	class refresher.Class
	// retryAfter is what the first gap must honour; 0: the backoff's own.
	retryAfter time.Duration
	// until is the same as a date, for the first gap alone.
	until time.Time
}

func faultCases() []faultCase {
	const T, M, R, U = refresher.Transient, refresher.Malformed, refresher.Refused, refresher.Unknown
	answer := func(status int, body string, header ...string) sandbox.Fault {
		f := sandbox.Fault{Kind: "status", Status: status, Body: body, Header: map[string]string{}}
		for i := 0; i+1 < len(header); i += 2 {
			f.Header[header[i]] = header[i+1]
		}
		return f
	}
	claims := func(c map[string]any) sandbox.Fault { return sandbox.Fault{Kind: "claims", Claims: c} }
	row := func(name string, f sandbox.Fault, c refresher.Class) faultCase {
		return faultCase{name: name, fault: f, class: c}
	}
	cases := []faultCase{
		row("refused connection", sandbox.Fault{Kind: "refuse"}, T),
		row("hang", sandbox.Fault{Kind: "hang"}, T),
		row("reset", sandbox.Fault{Kind: "reset"}, T),
		row("reset after headers", sandbox.Fault{Kind: "reset", Status: 200, Header: map[string]string{"Content-Type": "application/json"}}, T),
		row("half a body", sandbox.Fault{Kind: "half", Status: 200, Body: `{"accessToken":"eyJhbGciOi"}`}, T),
		row("a byte a second", sandbox.Fault{Kind: "drip", Status: 200, Body: `{"accessToken":"eyJhbGciOi"}`}, T),
		row("1 GiB", sandbox.Fault{Kind: "huge"}, M),
		// Not inflated, it is less than 1 MiB and no JSON; inflated, it would be
		// malformed like the row before.
		row("gzip bomb", sandbox.Fault{Kind: "bomb"}, T),
		row("HTML 200", answer(200, "<html>log in</html>", "Content-Type", "text/html"), T),
		row("wrong content type", answer(200, "accessToken=x", "Content-Type", "text/plain"), T),
		row("204", answer(204, ""), T),
		row("empty 200", answer(200, ""), T),
		row("307 elsewhere", answer(307, "", "Location", "http://127.0.0.2:1/auth/token"), T),
		row("308 elsewhere", answer(308, "", "Location", "http://127.0.0.2:1/auth/token"), T),
		row("302 elsewhere", answer(302, "", "Location", "http://127.0.0.2:1/"), T),
		row("303 elsewhere", answer(303, "", "Location", "http://127.0.0.2:1/"), T),
		row("301 elsewhere", answer(301, "", "Location", "http://127.0.0.2:1/"), T),
		row("300 without a place", answer(300, ""), T),
		row("bare 401", answer(401, ""), R),
		row("bare 403", answer(403, ""), R),
		row("401 jwt expired", answer(401, "jwt expired"), R),
		row("404", answer(404, ""), U),
		row("400", answer(400, ""), U),
		row("418", answer(418, ""), U),
		row("408", answer(408, ""), T),
		row("425", answer(425, ""), T),
		row("429 without a wish", answer(429, ""), T),
		row("500", answer(500, ""), T),
		row("501", answer(501, ""), T),
		row("502", answer(502, "<html>bad gateway</html>"), T),
		row("503", answer(503, ""), T),
		row("504", answer(504, ""), T),
		row("500 with invalid_grant", answer(500, `{"error":"invalid_grant"}`), T),
		row("bad_refresh_token", answer(400, `{"error":"bad_refresh_token"}`), refresher.NeedsLogin),
		row("no access token", answer(200, `{}`), M),
		row("null", answer(200, `null`), M),
		row("a list", answer(200, `[]`), M),
		row("empty token", answer(200, `{"accessToken":""}`), M),
		row("token null", answer(200, `{"accessToken":null}`), M),
		row("token a number", answer(200, `{"accessToken":7}`), M),
		row("token with a newline", answer(200, `{"accessToken":"a\nb"}`), M),
		row("token with a space", answer(200, `{"accessToken":"a b"}`), M),
		row("token of 64 KiB and one", answer(200, `{"accessToken":"`+strings.Repeat("x", 64<<10+1)+`"}`), M),
		row("duplicate keys", answer(200, `{"accessToken":"a","accessToken":"b"}`), M),
		row("invalid UTF-8", sandbox.Fault{Kind: "status", Status: 200, BodyBase64: []byte("{\"accessToken\":\"a\xff\xfe\"}")}, M),
		row("exp before iat", claims(map[string]any{"exp": 1}), M),
		row("exp is now", claims(map[string]any{"exp": 946684800, "iat": 946684800}), M),
	}
	for _, status := range []int{400, 401, 403} {
		for code, class := range map[string]refresher.Class{
			"invalid_grant": refresher.NeedsLogin, "invalid_client": refresher.Configuration, "unauthorized_client": refresher.Configuration,
			"unsupported_grant_type": refresher.Configuration, "invalid_request": U, "invalid_scope": U,
		} {
			if class == U && status != 400 {
				class = R
			}
			cases = append(cases, row(fmt.Sprintf("%s with %d", code, status), answer(status, `{"error":"`+code+`","error_description":"x"}`), class))
		}
	}
	for _, status := range []int{429, 503} {
		for _, wish := range retryWishes {
			c := row(fmt.Sprintf("%d, Retry-After: %s", status, wish.header), answer(status, "", "Retry-After", wish.header), T)
			c.retryAfter, c.until = wish.wait, wish.until
			cases = append(cases, c)
		}
	}
	return cases
}

// retryWishes are the forms of Retry-After (RFC 9110 section 10.2.3) and what
// must come of them.
var retryWishes = []struct {
	header string
	wait   time.Duration
	until  time.Time
}{
	{header: "0"},
	{header: "-1"},
	{header: "soon"},
	{header: "1.5"},
	{header: "1", wait: time.Second},
	{header: "2", wait: 2 * time.Second},
	{header: "90", wait: 90 * time.Second},
	{header: "3600", wait: 10 * time.Minute},
	{header: "99999999999", wait: 10 * time.Minute},
	{header: "99999999999999999999", wait: 10 * time.Minute},
	{header: "Fri, 31 Dec 9999 23:59:59 GMT", wait: 10 * time.Minute},
	{header: "Mon, 01 Jan 1990 00:00:00 GMT"},
	{header: "Mon, 01 Jan 2035 00:00:00 GMT", wait: 10 * time.Minute},
	// A bubble's time begins at midnight of this day, and the first attempt comes
	// at 00:30 to 00:36: a date that is neither past nor clamped.
	{header: "Sat, 01 Jan 2000 00:39:00 GMT", until: time.Date(2000, 1, 1, 0, 39, 0, 0, time.UTC)},
}

// Every way to fail: no crash, the right class, the access token still served
// while it is valid, and the measured gaps between attempts within the
// schedule. A schedule that is computed and not waited for passes every count.
func TestFaultTable(t *testing.T) {
	cases := faultCases()
	if len(cases) < 60 {
		t.Errorf("only %d cases", len(cases))
	}
	attempts := 0
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { attempts += runFault(t, tt) })
		})
	}
	t.Logf("%d cases, %d attempts", len(cases), attempts)
}

func runFault(t *testing.T, tt faultCase) int {
	rig := newRig(t, sandbox.Config{})
	expiry := rig.r.Snapshot().Expiry()
	if tt.fault.Kind == "refuse" {
		rig.net.setRefuse(true)
	} else {
		tt.fault.Route, tt.fault.Grant = "POST /auth/token", "refreshToken"
		if err := rig.api.AddFault(tt.fault); err != nil {
			t.Fatal(err)
		}
	}
	for time.Now().Before(expiry.Add(-30 * time.Second)) {
		tok, err := rig.r.Token(t.Context(), 0)
		if err != nil || tok.Generation != 1 {
			t.Fatalf("a valid token was not served: %v", err)
		}
		time.Sleep(20 * time.Second)
	}
	synctest.Wait()
	s := rig.r.Snapshot()
	if s.Class != tt.class {
		t.Errorf("class %v (%v), want %v", s.Class, s.Err, tt.class)
	}
	for _, address := range rig.net.addresses() {
		if address != "127.0.0.1:1" {
			t.Errorf("something was sent to %s", address)
		}
	}
	checkGaps(t, tt, rig.net.times())
	if tt.class == refresher.NeedsLogin || tt.class == refresher.Configuration {
		return len(rig.net.times())
	}
	// After the expiry there is no token; when the endpoint is back there is one,
	// 5 s after the last attempt at the latest.
	time.Sleep(time.Until(expiry) + time.Minute)
	if tok, err := rig.r.Token(t.Context(), 0); err == nil {
		t.Errorf("an expired token was served: %v", tok)
	}
	rig.net.setRefuse(false)
	rig.api.ClearFaults()
	time.Sleep(30*time.Second + 5*time.Minute)
	if tt.class == refresher.Refused || tt.class == refresher.Unknown {
		time.Sleep(30 * time.Minute) // "needs login" by then, and tried all the same
	}
	if _, err := rig.r.Token(t.Context(), 0); err != nil {
		t.Errorf("the endpoint is back: %v", err)
	}
	return len(rig.net.times())
}

// checkGaps holds the times of the attempts against the schedule.
func checkGaps(t *testing.T, tt faultCase, at []time.Time) {
	t.Helper()
	switch {
	case tt.class == refresher.NeedsLogin:
		if len(at) != 1 {
			t.Errorf("%d attempts with a token that the endpoint called dead", len(at))
		}
		return
	case len(at) < 2 && tt.class != refresher.Configuration:
		t.Fatalf("%d attempts", len(at))
	}
	for i := 1; i < len(at); i++ {
		gap := at[i].Sub(at[i-1])
		least, most := min(time.Second<<(i-1)/4, 5*time.Second), min(time.Second<<min(i-1, 10), 2*time.Minute)
		switch {
		case tt.class == refresher.Configuration:
			least, most = 30*time.Minute, 30*time.Minute
		case tt.retryAfter > 0:
			least, most = tt.retryAfter, tt.retryAfter+tt.retryAfter/10
			if i > 1 {
				least = time.Second // clamped, so that the token's last minute is not slept through
			}
		case !tt.until.IsZero() && i == 1:
			least = tt.until.Sub(at[0])
			most = least + least/10
		}
		// An attempt itself may take up to 20 s.
		if gap < least || gap > most+21*time.Second {
			t.Errorf("gap %d is %v; want %v to %v", i, gap, least, most)
		}
	}
}

// What a token says of its life is believed where it makes sense, and the
// documented hour where it does not.
func TestOddLifetimesAreServed(t *testing.T) {
	for name, claims := range map[string]map[string]any{
		"no exp": {"exp": nil}, "no iat": {"iat": nil}, "neither": {"exp": nil, "iat": nil},
		"exp 1e18": {"exp": 1e18}, "exp in 100 years": {"exp": 4102444800}, "iat in the future": {"iat": 946684800 + 1800},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rig := newRig(t, sandbox.Config{})
				f := sandbox.Fault{Route: "POST /auth/token", Grant: "refreshToken", Kind: "claims", Claims: claims}
				if err := rig.api.AddFault(f); err != nil {
					t.Fatal(err)
				}
				if s, err := rig.r.Refresh(t.Context()); err != nil || s.Class != refresher.None {
					t.Fatalf("%v, %v", s.Err, err)
				}
				tok, err := rig.r.Token(t.Context(), 0)
				if life := tok.Expiry.Sub(tok.IssuedAt); err != nil || life < time.Minute || life > 24*time.Hour {
					t.Errorf("lives %v, %v", life, err)
				}
			})
		})
	}
}

// An outage: nobody notices 25 minutes; 3 hours cost a bounded number of
// attempts, and the first request after the return succeeds.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newRig(t, sandbox.Config{})
		time.Sleep(30 * time.Minute) // at the earliest refresh
		rig.net.setRefuse(true)
		start := time.Now()
		failed := 0
		for time.Since(start) < 25*time.Minute {
			if _, err := rig.r.Token(t.Context(), refresher.DefaultMinTTL); err != nil {
				failed++
			}
			time.Sleep(time.Second)
		}
		if failed > 0 {
			t.Errorf("%d callers noticed an outage of 25 minutes", failed)
		}
		rig.net.setRefuse(false)
		time.Sleep(2 * time.Minute)
		if s := rig.r.Snapshot(); s.Class != refresher.None {
			t.Errorf("not recovered: %v", s.Err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		rig := newRig(t, sandbox.Config{})
		rig.net.setRefuse(true)
		time.Sleep(3 * time.Hour)
		quiet := len(rig.net.times())
		var gap time.Duration
		start, last := time.Now(), quiet
		for time.Since(start) < 10*time.Minute { // 100 callers a second
			_, err := rig.r.Token(t.Context(), 0)
			var e *refresher.Error
			if !errors.As(err, &e) || e.Class != refresher.Transient {
				t.Fatalf("%v", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		at := rig.net.times()
		for i := last + 1; i < len(at); i++ {
			if gap = at[i].Sub(at[i-1]); gap < 5*time.Second {
				t.Errorf("attempts %v apart with 100 callers a second", gap)
			}
		}
		if quiet >= 60 {
			t.Errorf("%d attempts in 3 h without callers", quiet)
		}
		t.Logf("3 h without callers: %d attempts; then 10 min with 100 callers a second: %d", quiet, len(at)-quiet)
		rig.net.setRefuse(false)
		time.Sleep(5 * time.Second)
		if _, err := rig.r.Token(t.Context(), 0); err != nil {
			t.Errorf("the first request 5 s after the return: %v", err)
		}
	})
}
