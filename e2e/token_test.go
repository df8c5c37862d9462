package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
	"bloq-agent/ipc/client"
)

// The whole life of a token, with a real endpoint that goes away and returns.
func TestFromLoginToOutageAndBack(t *testing.T) {
	w := newWorld(t, sandbox.Config{AccessTTL: 4 * time.Second})
	w.start("--store", "memory")
	if r := w.run("", "bloq-token"); r.code != 3 || !strings.Contains(r.stderr, "hint: bloq-agent login") {
		t.Errorf("before the login: %+v", r)
	}
	w.login()
	first := w.must("", "bloq-token").stdout
	if strings.Count(first, ".") != 2 || !strings.HasSuffix(first, "\n") || strings.Count(first, "\n") != 1 {
		t.Errorf("bloq-token printed %q", first)
	}
	header := w.must("", "bloq-token", "header").stdout
	if header != "Authorization: Bearer "+first {
		t.Errorf("header: %q", header)
	}
	if got := w.nodes(strings.TrimSpace(first)); got != http.StatusOK {
		t.Errorf("the Nodes API answers %d", got)
	}
	events := w.events()
	w.await(events, "a refresh without a request", func(e ipc.Event) bool { return e.Event == "refreshed" && e.Status.Generation == 2 })
	if again := w.must("", "bloq-token").stdout; again == first {
		t.Error("the token has not changed")
	}

	down := sandbox.Fault{Route: "POST /auth/token", Kind: "reset"}
	if err := w.api.Load().AddFault(down); err != nil {
		t.Fatal(err)
	}
	failing := w.await(events, "a failed refresh", func(e ipc.Event) bool { return e.Event == "refresh failed" })
	if failing.Status.State != ipc.StateStale {
		t.Errorf("state %q with a valid token", failing.Status.State)
	}
	w.must("", "bloq-token") // the last good token
	time.Sleep(time.Until(failing.Status.ExpiresAt))
	if r := w.run("", "bloq-token"); r.code != 5 || r.stdout != "" {
		t.Errorf("after expiry: %+v", r)
	}

	w.api.Load().ClearFaults()
	w.await(events, "the recovery", func(e ipc.Event) bool {
		// The loop tries by itself; so does a request, 5 s after the last attempt.
		return e.Event == "recovered"
	})
	w.must("", "bloq-token")
	w.stop()
	if r := w.run("", "bloq-token"); r.code != 4 {
		t.Errorf("without a daemon: %+v", r)
	}
}

// Where the clocks agree, nobody gets a token at its exp or later: neither the
// one that a login brought nor one that the daemon bought.
func TestNoTokenIsServedBeyondItsExp(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login()
	for _, when := range []string{"after the login", "after a refresh"} {
		var a ipc.TokenAnswer
		if err := json.Unmarshal([]byte(w.must("", "bloq-token", "json").stdout), &a); err != nil {
			t.Fatal(err)
		}
		times, err := accounts.TokenTimes(a.Token)
		if err != nil || a.ExpiresAt.After(times.Expiry) || a.ExpiresAt.Before(times.Expiry.Add(-3*time.Second)) {
			t.Errorf("%s: served until %v, exp is %v, %v", when, a.ExpiresAt, times.Expiry, err)
		}
		w.must("", "bloq-agent", "refresh")
	}
}

func (w *world) nodes(token string) int {
	w.t.Helper()
	r, err := http.NewRequest(http.MethodGet, w.url+"/nodes/v1/status", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

// The daemon is stopped until its token has expired, as by a suspend; a
// thousand callers are waiting when it wakes.
func TestAThousandCallersOnAnExpiredTokenCostOneExchange(t *testing.T) {
	w := newWorld(t, sandbox.Config{AccessTTL: time.Second})
	w.start("--store", "memory")
	w.login()
	if err := w.daemon.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.setSandbox(func(c *sandbox.Config) { c.AccessTTL = time.Hour })
	time.Sleep(1100 * time.Millisecond) // the lifetime, which is the test's subject
	var wg, connected sync.WaitGroup
	codes := make(chan int, 1000)
	connected.Add(1)
	for range 1000 {
		wg.Go(func() {
			connected.Wait()
			// The helper's own client: it asks again where the daemon has made room
			// by closing a connection on which nothing had come yet.
			answer, err := client.Do(w.socket(), client.Request{Target: ipc.RouteToken, Timeout: 30 * time.Second})
			if err != nil {
				t.Error(err)
				return
			}
			var token ipc.TokenAnswer
			if err := json.Unmarshal(answer.Body, &token); err != nil || token.Stale || !time.Now().Before(token.ExpiresAt) {
				t.Errorf("%v, %v", token, err)
			}
			codes <- answer.Status
		})
	}
	connected.Done()
	if err := w.daemon.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	close(codes)
	n := 0
	for code := range codes {
		if code == http.StatusOK {
			n++
		}
	}
	exchanges := w.api.Load().Stats().Grants["refreshToken"]
	t.Logf("%d callers answered, %d exchange", n, exchanges)
	if n != 1000 || exchanges != 1 {
		t.Errorf("%d of 1000 answered, %d exchanges", n, exchanges)
	}
}

func TestEveryFormAndRoute(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login()
	token := strings.TrimSpace(w.must("", "bloq-token").stdout)
	if got := w.must("", "bloq-token", "bearer").stdout; got != "Bearer "+token+"\n" {
		t.Errorf("bearer: %q", got)
	}
	var answer ipc.TokenAnswer
	if err := json.Unmarshal([]byte(w.must("", "bloq-token", "json").stdout), &answer); err != nil || string(answer.Token) != token || answer.TokenType != "Bearer" {
		t.Errorf("json: %v, %v", answer, err)
	}
	account := strings.TrimSpace(w.must("", "bloq-token", "--account").stdout)
	if account == token || w.nodes(account) != http.StatusOK {
		t.Error("--account did not print the account token")
	}
	auth, err := w.client().Get("http://bloq-agent" + ipc.RouteAuth)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = auth.Body.Close() }()
	if body, _ := io.ReadAll(auth.Body); auth.StatusCode != 204 || auth.Header.Get("Authorization") != "Bearer "+token || len(body) != 0 {
		t.Errorf("auth: %d %q", auth.StatusCode, body)
	}
	before := answer.Generation
	w.must("", "bloq-agent", "refresh")
	_ = json.Unmarshal([]byte(w.must("", "bloq-token", "json").stdout), &answer)
	if answer.Generation != before+1 || string(answer.Token) == token {
		t.Errorf("refresh: generation %d after %d", answer.Generation, before)
	}
	keys := w.must("", "bloq-agent", "keys", "list").stdout
	if strings.Count(keys, "\n") != 1 {
		t.Errorf("keys list: %q", keys)
	}
	w.must("", "bloq-agent", "logout", "--delete-keys")
	if r := w.run("", "bloq-token"); r.code != 3 {
		t.Errorf("after logout: %+v", r)
	}
}

// A rotating endpoint is one that punishes a lost refresh token.
func TestRotationOverManyRefreshesAndARestart(t *testing.T) {
	w := newWorld(t, sandbox.Config{AccessTTL: time.Second, Rotation: sandbox.Rotation{On: true}})
	w.start("--store", "memory")
	w.login()
	w.eventually("20 exchanges", func() bool { return w.api.Load().Stats().Grants["refreshToken"] >= 20 })
	if s := w.api.Load().Stats(); s.Reuse != 0 {
		t.Errorf("%+v", s)
	}
}
