package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os/exec"
	"strings"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

// gitBackend is git's own CGI program, and has one repository: r.git.
func gitBackend(t *testing.T) http.Handler {
	t.Helper()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	script := "git init -q -b main --bare r.git && git -C r.git config http.receivepack true &&" +
		"git init -q w && cd w && git -c user.name=x -c user.email=x@example.com commit -q --allow-empty -m x && git push -q ../r.git HEAD:main"
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir, cmd.Env = root, []string{"PATH=/usr/bin:/bin", "HOME=" + root, "GIT_CONFIG_NOSYSTEM=1"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return &cgi.Handler{
		Path: git, Args: []string{"http-backend"}, Dir: root,
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
}

// gitServer serves the world's r.git.
func gitServer(t *testing.T, accept func(auth string) bool) *listener {
	t.Helper()
	backend := gitBackend(t)
	challenge := []string{`Bearer realm="bloq"`, `Basic realm="bloq"`}
	l := listen(t, false, challenge, func(w http.ResponseWriter, r *http.Request) {
		if !accept(r.Header.Get("Authorization")) {
			w.Header()["Www-Authenticate"] = challenge
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	})
	return l
}

func anybody(string) bool { return true }

// A gitClient is a git, and the form in which it sends a token.
type gitClient struct {
	name   string
	header func(token string) string
}

// gits are the clients at hand: git, and one that can send a bearer header.
func (w *world) gits() []gitClient {
	w.t.Helper()
	var list []gitClient
	capable := false
	for _, name := range []string{"git", "git-new"} {
		if _, err := exec.LookPath(name); err != nil {
			continue
		}
		client := gitClient{name, basic("oauth2")}
		if atLeast(w.version(name+" --version"), 2, 46) {
			client.header, capable = bearer, true
		}
		list = append(list, client)
	}
	if !capable {
		w.t.Log("no git of 2.46 or newer, which can send a bearer header: " + installs["git-new"])
	}
	return list
}

func testGit(t *testing.T, snippet string) {
	need(t, "git")
	l := gitServer(t, anybody)
	w := toolWorld(t, l.host())
	w.mustSh(asWritten(snippet, l))
	for _, git := range w.gits() {
		w.login()
		ask := func() result { return w.sh(git.name + " ls-remote " + l.URL + "/r.git") }
		w.proves(l, git.header, true, ask)
		if r := ask(); !strings.Contains(r.stderr, "told us to quit") { // instead of asking for a password
			t.Errorf("%s: %s", git.name, r.stderr)
		}
	}
}

// A token's end is the daemon's business: git asks each time, and gets one that
// is good. The hosts are those of the Nodes API, as without a configuration.
func TestGitAfterExpiry(t *testing.T) {
	need(t, "git")
	l := gitServer(t, anybody)
	w := newWorld(t, sandbox.Config{AccessTTL: 2 * time.Second})
	w.env = append(w.env, "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1")
	w.start("--store", "memory")
	w.login("--nodes-url", l.URL)
	w.mustSh("git config --global credential.helper bloq")
	clients := w.gits()
	for _, git := range clients {
		first := w.token()
		time.Sleep(2100 * time.Millisecond) // its lifetime, which is the test's subject
		w.mustSh(git.name + " clone -q " + l.URL + "/r.git clone-" + git.name)
		got := l.took()
		if len(got) < 2 { // refs, then objects
			t.Errorf("Authorization: %s", got)
		}
		for _, auth := range got {
			if auth == git.header(first) {
				t.Errorf("the expired token came: %s", auth)
			}
		}
	}
	events := w.events()
	w.fault(sandbox.Fault{Route: "POST /auth/token", Kind: "status", Status: 400, Body: `{"error":"invalid_grant"}`})
	w.await(events, "the end of the login", func(e ipc.Event) bool { return e.Event == "needs login" })
	for w.run("", "bloq-token").code == 0 {
		time.Sleep(100 * time.Millisecond) // what is left of the last token's lifetime
	}
	for _, git := range clients {
		r := w.sh(git.name + " ls-remote " + l.URL + "/r.git")
		if got := l.took(); r.code == 0 || len(got) != 0 || !strings.Contains(r.stderr, loginHint) {
			t.Errorf("%s without a login: %+v, Authorization: %s", git.name, r, got)
		}
	}
}

// A helper in the global configuration is asked for every host there is. What it
// has nothing for must go on as if it were not there.
func TestGitStillTalksToOtherHosts(t *testing.T) {
	need(t, "git")
	other := gitServer(t, func(auth string) bool { return auth == basic("ada")("pass") })
	w := toolWorld(t, "nodes.bloq.cloud")
	w.write("other-helper", "#!/bin/sh\ncat >/dev/null\n[ \"$1\" = get ] && printf 'username=ada\\npassword=pass\\n'\nexit 0\n")
	w.mustSh("chmod 700 other-helper && git config --global credential.helper bloq && git config --global --add credential.helper ~/other-helper")
	clients := w.gits()
	push := func(when, hint string) {
		t.Helper()
		for _, git := range clients {
			script := "rm -rf c && GIT clone -q URL/r.git c && cd c && git -c user.name=x -c user.email=x@example.com commit -q --allow-empty -m x && GIT push -q origin main"
			r := w.sh(strings.NewReplacer("GIT", git.name, "URL", other.URL).Replace(script))
			if r.code != 0 || !strings.Contains(r.stderr, hint) || hint == "" && r.stderr != "" {
				t.Errorf("%s, %s: exit %d, want the hint %q\n%s", git.name, when, r.code, hint, r.stderr)
			}
			for _, auth := range other.took() {
				if auth != basic("ada")("pass") {
					t.Errorf("%s, %s: Authorization: %s", git.name, when, auth)
				}
			}
		}
	}
	push("daemon runs", "")
	w.must("", "bloq-agent", "logout")
	push("nobody is logged in", "")
	w.login()
	w.must("", "bloq-agent", "lock")
	push("locked", "")
	w.stop()
	push("daemon is stopped", "hint: bloq-agent serve")
	w.write("config/bloq-agent/config.toml", "frobnicate = 1\n")
	w.start("--store", "memory")
	push("configuration is bad", "hint: bloq-agent config check")
}

// Git says that a token was refused; a server that refuses every one must not
// make every fetch an exchange.
func TestARefusedTokenIsReplacedOnceAMinute(t *testing.T) {
	need(t, "git")
	l := gitServer(t, func(string) bool { return false })
	w := toolWorld(t, l.host())
	w.mustSh("git config --global credential.helper bloq")
	exchanges := func() int { return w.api.Load().Stats().Grants["refreshToken"] }
	rejected := func(token string, checked bool) {
		t.Helper()
		got := w.post(ipc.RouteRejected, `{"profile":"default","token":"`+token+`"}`)
		if want := fmt.Sprintf(`{"profile":"default","checked":%v}`, checked); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	before, first := exchanges(), w.token()
	rejected("eyJ.eyJ.x", false) // that nobody serves
	events := w.events()
	for range 3 {
		if r := w.sh("git ls-remote " + l.URL + "/r.git"); r.code == 0 {
			t.Fatal("git was served")
		}
	}
	if got := l.took(); len(got) == 0 || got[0] != basic("oauth2")(first) && got[0] != bearer(first) {
		t.Errorf("Authorization: %s", got)
	}
	w.await(events, "the refresh", func(e ipc.Event) bool { return e.Event == "refreshed" })
	second := w.token()
	if second == first {
		t.Error("the refused token is still served")
	}
	rejected(first, false)  // replaced already
	rejected(second, false) // within a minute
	if n := exchanges() - before; n != 1 {
		t.Errorf("%d exchanges for tokens that were refused within a minute", n)
	}
}

// A program of one's own says it by the socket.
func TestAProgramSaysThatATokenWasRefused(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login()
	events, token := w.events(), w.token()
	for _, want := range []string{`{"profile":"default","checked":true}`, `{"profile":"default","checked":false}`} {
		if got := w.post(ipc.RouteRejected, `{"profile":"default","token":"`+token+`"}`); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	w.await(events, "the refresh", func(e ipc.Event) bool { return e.Event == "refreshed" })
	if got := w.post(ipc.RouteRejected, `{"profile":"default"}`); !strings.Contains(got, "token is missing") {
		t.Errorf("%s", got)
	}
}

func (w *world) post(route, body string) string {
	w.t.Helper()
	answer, err := w.client().Post("http://bloq-agent"+route, "application/json", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
