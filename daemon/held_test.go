//go:build linux

package daemon

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/accounts/sandbox"
	"bloq-agent/daemon/notifytest"
	"bloq-agent/daemon/profile"
	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
	"bloq-agent/store"
	"bloq-agent/store/storetest"

	"github.com/rs/zerolog"
)

// An agent is a whole daemon on a disk that can be made to stand still, with an
// endpoint that rotates.
type agent struct {
	*Daemon
	t    *testing.T
	disk *storetest.HeldDisk
	http *http.Client
	api  *sandbox.Server
	url  string
	sink string
	told *notifytest.Manager

	configDir string
	reload    chan os.Signal
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{t: t, disk: storetest.HoldDisk(t), sink: filepath.Join(t.TempDir(), "token")}
	a.told = notifytest.New(t, 3)
	t.Setenv("NOTIFY_SOCKET", a.told.Path)
	t.Setenv("WATCHDOG_USEC", "100000")
	var err error
	a.api, err = sandbox.New(sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	do(t, err)
	endpoint := httptest.NewServer(a.api)
	t.Cleanup(func() {
		endpoint.Close()
		a.api.Close()
	})
	a.url = endpoint.URL
	dir, err := os.MkdirTemp("", "bloq-held-") // t.TempDir can be too long for a socket
	do(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a.configDir, a.reload = filepath.Join(dir, "config"), make(chan os.Signal)
	state, config, socket := filepath.Join(dir, "state"), filepath.Join(a.configDir, "config.toml"), filepath.Join(dir, "d", "s")
	do(t, os.Mkdir(a.configDir, 0o700))
	do(t, os.WriteFile(config, fmt.Appendf(nil, "[profile.default]\nhosts = [\"git.example\"]\n[[profile.default.sink]]\npath = %q\n", a.sink), 0o600))
	l, err := server.Listen(socket)
	do(t, err)
	a.Daemon, err = New(Options{
		Listener: l, StateDir: state, ConfigPath: config, Store: "file", Log: zerolog.Nop(),
		Stores: profile.Stores{
			Keyring: store.NewKeyring(), Memory: store.NewMemory(),
			File: store.NewFile(state, store.NewKey(filepath.Join(dir, "key"), "")),
		},
	})
	do(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx, a.reload) }() // ends with the test
	t.Cleanup(func() {
		stop()
		<-ended
	})
	exchange(t, socket, []byte("GET "+ipc.RouteStatus+" HTTP/1.0\r\n\r\n")) // it serves now
	a.http = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	t.Cleanup(a.http.CloseIdleConnections)
	return a
}

// login is the body of an adoption, with tokens that the endpoint has just made.
func (a *agent) login(name, storeName string) []byte {
	a.t.Helper()
	client, err := accounts.New(accounts.FromAccountsURL(a.url), accounts.Options{})
	do(a.t, err)
	account, err := client.Login(a.t.Context(), a.api.Email(), []byte(a.api.Password()))
	do(a.t, err)
	key, err := client.CreateKey(a.t.Context(), account.AccessToken)
	do(a.t, err)
	g, err := client.ClientCredentials(a.t.Context(), key.ID, key.Secret)
	do(a.t, err)
	e := accounts.FromAccountsURL(a.url)
	body, err := json.Marshal(ipc.Adopt{
		Profile: name, Store: storeName, LoginURL: e.Login, TokenURL: e.Token, KeysURL: e.Keys, NodesURL: e.Nodes, ClientID: key.ID,
		RefreshToken: g.RefreshToken, AccessToken: g.AccessToken, AccountToken: account.AccessToken, IssuedAt: time.Now(),
	})
	do(a.t, err)
	return body
}

// ask returns the status of the answer, and an error unless that is what is wanted.
func (a *agent) ask(method, route string, body []byte, want int) error {
	r, err := http.NewRequest(method, "http://bloq-agent"+route, bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := a.http.Do(r)
	if err != nil {
		return fmt.Errorf("%s: %w", route, err)
	}
	said, err := io.ReadAll(answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return err
	}
	if answer.StatusCode != want {
		return fmt.Errorf("%s: %d, want %d: %s", route, answer.StatusCode, want, said)
	}
	if want == http.StatusOK && strings.HasPrefix(route, ipc.RouteDialect) && !bytes.Contains(said, []byte("ey")) {
		return fmt.Errorf("%s: no token: %s", route, said)
	}
	return nil
}

// alive wants the watchdog to be fed from now on.
func (a *agent) alive() {
	a.t.Helper()
	fed := func(said []string) (n int) {
		for _, s := range said {
			if s == "WATCHDOG=1" {
				n++
			}
		}
		return n
	}
	before := -1
	a.told.Await(a.t, "a sign of life", func(said []string) bool {
		if before < 0 {
			before = fed(said)
		}
		return fed(said) >= before+3 // the first may have been on its way
	})
}

// asked are the requests that wait for no disk, with the answer while tokens are
// handed out.
var asked = []struct {
	method, route string
	call          ipc.Call
	token         bool
}{
	{"GET", ipc.RouteToken + "?profile=default", ipc.Call{}, true},
	{"GET", ipc.RouteStatus, ipc.Call{}, false},
	{"GET", ipc.RouteAuth + "?profile=default", ipc.Call{}, true},
	{"GET", ipc.RouteToken + "?profile=default&kind=account", ipc.Call{}, true},
	{"POST", ipc.RouteDialect + "token?profile=default", ipc.Call{}, true},
	{"POST", ipc.RouteDialect + "git", ipc.Call{Args: []string{"get"}, Stdin: []byte("protocol=https\nhost=git.example\n\n")}, true},
	{"GET", ipc.RouteCallers, ipc.Call{}, false},
}

// While a disk stands still, in the save of a rotated token or wherever else, each
// request for a token is answered, and so are the status and the watchdog's check.
// The disk stands still until they all are: one that needs it would never be.
func TestNoRequestWaitsForADisk(t *testing.T) {
	const rounds = 1500 // for each of seven changes
	a := newAgent(t)
	do(t, a.ask("POST", ipc.RouteAdopt, a.login("default", "file"), http.StatusOK))
	do(t, a.ask("POST", ipc.RouteAdopt, a.login("work", "memory"), http.StatusOK))
	tokenFiles{a.Daemon}.settle("")
	named := func(name string) []byte { return []byte(`{"profile":"` + name + `"}`) }
	post := func(route string, body []byte) func() error {
		return func() error { return a.ask("POST", route, body, http.StatusOK) }
	}
	requests := 0
	var slowest time.Duration
	for _, tt := range []struct {
		name   string
		stops  func(call string) bool
		change func() error
		locked bool
	}{
		{"the save of a rotated token", storetest.ASave, post(ipc.RouteRefresh, named("default")), false},
		{"the begin of an exchange", storetest.AnyCall, post(ipc.RouteRefresh, named("default")), false},
		{"a login in its place", storetest.AnyCall, post(ipc.RouteAdopt, a.login("default", "file")), false},
		{"a move", storetest.AnyCall, post(ipc.RouteStore, []byte(`{"profile":"work","to":"file"}`)), false},
		{"other trust", storetest.AnyCall, func() error { a.retrust(); return nil }, false},
		{"a token file", func(call string) bool { return strings.HasSuffix(call, "sinks.json") }, a.rewriteSink, false},
		{"a logout", storetest.AnyCall, post(ipc.RouteForget, named("work")), false},
		{"a lock", storetest.AnyCall, post(ipc.RouteLock, []byte("{}")), true},
	} {
		held, release := a.disk.Hold(tt.stops)
		t.Cleanup(release) // before the daemon is stopped
		changed := make(chan error, 1)
		go func() { changed <- tt.change() }() // ends when the disk goes on
		select {
		case <-held:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: it needs no disk", tt.name)
		}
		for i := range rounds {
			q := asked[0]
			if i%20 == 0 {
				q = asked[i/20%len(asked)]
			}
			if tt.locked {
				q = asked[1]
			}
			var body []byte
			if q.method == "POST" {
				body = ipc.AppendCall(nil, q.call)
			}
			want := http.StatusOK
			if strings.HasPrefix(q.route, ipc.RouteAuth) {
				want = http.StatusNoContent
			}
			start := time.Now()
			if err := a.ask(q.method, q.route, body, want); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			slowest = max(slowest, time.Since(start))
			requests++
		}
		a.alive()
		release()
		if err := <-changed; err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	t.Logf("%d requests, the slowest %v", requests, slowest)
	if n := a.api.Stats().Reuse; n != 0 {
		t.Errorf("%d refresh tokens were spent twice", n)
	}
}

// retrust has each profile made anew, as a reload with other certificates does. It
// does not wait for that.
func (a *agent) retrust() {
	s := a.settings()
	s.Client.RootCAs = x509.NewCertPool()
	a.state.set.Load().Configure(s)
}

// rewriteSink makes the keeper write the token file and the record of it.
func (a *agent) rewriteSink() error {
	if err := os.Remove(a.sink); err != nil {
		return err
	}
	tokenFiles{a.Daemon}.settle("")
	return nil
}

// However many refreshes hang in the disk, and although the state directory cannot be
// looked at, the status is answered, to as many as ask, and says which refreshes hang.
func TestTheStatusOfADiskThatHangs(t *testing.T) {
	const profiles, callers = 40, 100 // more than there are threads for
	a := newAgent(t)
	for i := range profiles {
		do(t, a.ask("POST", ipc.RouteAdopt, a.login(fmt.Sprintf("p%d", i), "file"), http.StatusOK))
	}
	held, release := a.disk.Hold(storetest.AnyCall)
	t.Cleanup(release)
	for i := range profiles {
		go func() { // ends with the disk
			_ = a.ask("POST", ipc.RouteRefresh, fmt.Appendf(nil, `{"profile":"p%d"}`, i), http.StatusOK)
		}()
	}
	<-held
	deadline := time.Now().Add(40 * time.Second)
	for stuck := 0; stuck < profiles; {
		if time.Now().After(deadline) {
			t.Fatalf("the status tells of %d refreshes that hang", stuck)
		}
		stuck = 0
		for _, p := range a.profiles() {
			if s := a.describe(p.Status()); strings.Contains(s.Warning, "waiting for the s") {
				stuck++
			}
		}
		a.alive()
	}
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			if err := a.ask("GET", fmt.Sprintf("%s?profile=p%d", ipc.RouteToken, i%profiles), nil, http.StatusOK); err != nil {
				t.Error(err)
			}
			if err := a.ask("GET", ipc.RouteStatus, nil, http.StatusOK); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := a.disk.Calls(); n > 16 {
		t.Errorf("%d calls of the disk at the same time", n)
	}
}

// While there is no login, an answer takes a look at the disk. It waits for none that
// hangs.
func TestNobodyAndADiskThatHangs(t *testing.T) {
	a := newAgent(t)
	_, release := a.disk.Hold(storetest.AnyCall)
	t.Cleanup(release)
	for range 20 {
		do(t, a.ask("GET", ipc.RouteToken, nil, http.StatusServiceUnavailable))
		do(t, a.ask("GET", ipc.RouteStatus, nil, http.StatusOK))
	}
	if n := a.disk.Calls(); n != 1 {
		t.Errorf("%d calls of the disk for 40 requests", n)
	}
	release()
	for a.ask("GET", ipc.RouteToken, nil, http.StatusForbidden) != nil {
		runtime.Gosched() // until the look that hung is over
	}
}

// A configuration that cannot be read holds up nothing, and a reload ends all the same.
func TestAConfigurationThatHangs(t *testing.T) {
	a := newAgent(t)
	do(t, a.ask("POST", ipc.RouteAdopt, a.login("default", "file"), http.StatusOK))
	storetest.Hang(t, a.configDir)
	a.reload <- os.Interrupt
	a.alive()
	do(t, a.ask("GET", ipc.RouteToken, nil, http.StatusOK))
	do(t, a.ask("GET", ipc.RouteStatus, nil, http.StatusOK))
	a.told.Await(t, "that the reload is over", func(said []string) bool {
		i := slices.IndexFunc(said, func(s string) bool { return strings.HasPrefix(s, "RELOADING=1\n") })
		return i >= 0 && slices.Contains(said[i:], "READY=1")
	})
	a.alive()
}
