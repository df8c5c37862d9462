package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/accounts/sandbox"
	"bloq-agent/daemon"
	"bloq-agent/daemon/profile"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
	"bloq-agent/refresher"
	"bloq-agent/store"

	"github.com/rs/zerolog"
)

// A whole daemon runs in virtual time: nothing in it waits for the kernel. Its wall
// clock is the Outside's: a reading of another one would be of another year.
func TestADaemonInABubble(t *testing.T) {
	for _, ahead := range []time.Duration{0, 10_000 * time.Hour, -10_000 * time.Hour} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) { threeHours(t, dir, ahead) })
	}
}

func threeHours(t *testing.T, dir string, ahead time.Duration) {
	now := clock{refresher.RuntimeClock(), ahead}
	endpoint := newEndpoint(t, now)
	s := startDaemon(t, dir, now, endpoint.dial)
	var adopted ipc.Adopted
	s.ask(t, "POST", ipc.RouteAdopt, endpoint.login(t), &adopted)
	if left := adopted.ExpiresAt.Sub(now.Now()); left < 59*time.Minute || left > time.Hour {
		t.Errorf("a new token is good for %v", left)
	}
	time.Sleep(3 * time.Hour)
	var token ipc.TokenAnswer
	s.ask(t, "GET", ipc.RouteToken, nil, &token)
	if status := endpoint.asked(t, token.Token); status != http.StatusOK {
		t.Errorf("the endpoint answers %d to the token", status)
	}
	s.ask(t, "GET", ipc.RouteToken+"?kind=account", nil, nil)
	// A token of an hour is replaced after 30 to 36 minutes.
	if n := endpoint.api.Stats().Grants["refreshToken"]; n < 5 || n > 6 {
		t.Errorf("%d exchanges in three hours", n)
	}
	var status ipc.Status
	s.ask(t, "GET", ipc.RouteStatus, nil, &status)
	if since := now.Now().Sub(status.StartedAt); since != 3*time.Hour || status.Profiles[0].ClockSkew != 0 {
		t.Errorf("it runs for %v, and the endpoint's clock is %d s ahead", since, status.Profiles[0].ClockSkew)
	}
}

// A clock is virtual time with a wall clock that is set wrong.
type clock struct {
	refresher.Clock
	ahead time.Duration
}

func (c clock) Now() time.Time { return c.Clock.Now().Add(c.ahead) }

// An endpoint is a sandbox behind a network of pipes. It is its own net.Listener.
type endpoint struct {
	api    *sandbox.Server
	clock  clock
	conns  chan net.Conn
	closed chan struct{}
}

func newEndpoint(t *testing.T, now clock) *endpoint {
	t.Helper()
	api, err := sandbox.New(sandbox.Config{Unsigned: true, Now: now.Now})
	do(t, err)
	e := &endpoint{api: api, clock: now, conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: api}
	go func() { _ = srv.Serve(e) }() // ends with Close
	t.Cleanup(func() {
		api.Close()
		_ = srv.Close()
	})
	return e
}

func (e *endpoint) Accept() (net.Conn, error) {
	select {
	case c := <-e.conns:
		return c, nil
	case <-e.closed:
		return nil, net.ErrClosed
	}
}

func (e *endpoint) Close() error   { close(e.closed); return nil }
func (e *endpoint) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (e *endpoint) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case e.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var urls = accounts.FromAccountsURL("http://127.0.0.1:1")

// login is the body of an adoption.
func (e *endpoint) login(t *testing.T) []byte {
	t.Helper()
	client, err := accounts.New(urls, accounts.Options{DialContext: e.dial, Now: e.clock.Now})
	do(t, err)
	account, err := client.Login(t.Context(), e.api.Email(), []byte(e.api.Password()))
	do(t, err)
	key, err := client.CreateKey(t.Context(), account.AccessToken)
	do(t, err)
	g, err := client.ClientCredentials(t.Context(), key.ID, key.Secret)
	do(t, err)
	body, err := json.Marshal(ipc.Adopt{
		Profile: "default", LoginURL: urls.Login, TokenURL: urls.Token, KeysURL: urls.Keys, NodesURL: urls.Nodes, ClientID: key.ID,
		RefreshToken: g.RefreshToken, AccessToken: g.AccessToken, IssuedAt: g.IssuedAt, AccountToken: account.AccessToken,
	})
	do(t, err)
	return body
}

// asked is the status of the endpoint's answer to an access token.
func (e *endpoint) asked(t *testing.T, token []byte) int {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/nodes/v1/status", nil)
	r.Header.Set("Authorization", "Bearer "+string(token))
	w := httptest.NewRecorder()
	e.api.ServeHTTP(w, r)
	return w.Code
}

// A served is the daemon's Server: it keeps the handler, for ask.
type served struct {
	handler http.Handler
	started chan struct{} // closed by Serve
	closed  chan struct{} // closed by Shutdown
}

func (s *served) Serve() error {
	close(s.started)
	<-s.closed
	return nil
}

func (s *served) Shutdown(context.Context) error { close(s.closed); return nil }
func (s *served) Close() error                   { return nil }
func (s *served) CloseIdle()                     {}
func (s *served) Turns() uint64                  { return 0 }

// startDaemon runs a daemon until the test ends. What it returns answers.
func startDaemon(t *testing.T, dir string, now clock, dial func(context.Context, string, string) (net.Conn, error)) *served {
	t.Helper()
	s := &served{started: make(chan struct{}), closed: make(chan struct{})}
	d, err := daemon.New(daemon.Options{
		StateDir: filepath.Join(dir, "state"), ConfigPath: filepath.Join(dir, "config.toml"), Store: "memory", Log: zerolog.Nop(),
		Stores: profile.Stores{
			Keyring: store.NewKeyring(), Memory: store.NewMemory(),
			File: store.NewFile(filepath.Join(dir, "state"), store.NewKey(filepath.Join(dir, "key"), "")),
		},
		Outside: &daemon.Outside{
			Clock: now, Dial: dial,
			Serve: func(h http.Handler, hooks server.Hooks) daemon.Server {
				s.handler = server.Handler(h, hooks)
				return s
			},
			WatchConfig:  func(context.Context, string) (<-chan struct{}, error) { return nil, nil },
			WatchMachine: func(context.Context, func(), func(string, error)) {},
		},
	})
	do(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, nil) }()
	t.Cleanup(func() {
		stop()
		do(t, <-ended)
	})
	<-s.started
	return s
}

// A writer has the deadlines of a connection, and ignores them.
type writer struct{ *httptest.ResponseRecorder }

func (writer) SetReadDeadline(time.Time) error  { return nil }
func (writer) SetWriteDeadline(time.Time) error { return nil }

// ask decodes the body of a success with into, unless that is nil.
func (s *served) ask(t *testing.T, method, route string, body []byte, into any) {
	t.Helper()
	w := writer{httptest.NewRecorder()}
	s.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, route, bytes.NewReader(body)))
	if w.Code != http.StatusOK {
		t.Fatalf("%s %s: %d %s", method, route, w.Code, w.Body)
	}
	if into != nil {
		do(t, json.Unmarshal(w.Body.Bytes(), into))
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
