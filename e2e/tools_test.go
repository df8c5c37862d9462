package e2e

import (
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
)

// installs says how to come by a tool that tests use where it is there.
var installs = map[string]string{
	"git":       "apt-get install -y --no-install-recommends git",
	"git-new":   ".ci/tools, then make test",
	"kubectl":   "apt-get install -y kubectl (from Kubernetes' own repository)",
	"cargo":     "apt-get install -y --no-install-recommends cargo (1.74 or newer)",
	"terraform": "apt-get install -y terraform (from HashiCorp's own repository)",
	"pnpm":      "npm install --global pnpm",
	"pnpm-10":   ".ci/tools, then make test",
	"docker":    "apt-get install -y --no-install-recommends docker-cli",
	"crane":     "go install github.com/google/go-containerregistry/cmd/crane@v0.22.1",
	"curl":      "apt-get install -y --no-install-recommends curl",
	"nginx":     "apt-get install -y --no-install-recommends nginx-light",
}

func need(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("no %s: %s", tool, installs[tool])
	}
}

// snippets are the first fenced blocks under the headings of README's section
// on tools, by heading. What comes before the first heading is under "".
func snippets(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Use it with ")
	if !found {
		t.Fatal("README has no section on tools")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	list := map[string]string{}
	for i, part := range strings.Split(section, "\n### ") {
		heading, rest, _ := strings.Cut(part, "\n")
		if i == 0 {
			heading = ""
		}
		_, rest, _ = strings.Cut(rest, "\n```")
		_, rest, _ = strings.Cut(rest, "\n")
		list[heading], _, _ = strings.Cut(rest, "\n```")
	}
	return list
}

// The snippets of README work, with the real tools: the right token arrives,
// after a refresh the new one, and without a login the tool's user is told what
// to type.
func TestTools(t *testing.T) {
	tests := map[string]func(*testing.T, string){
		"git": testGit, "kubectl": testKubectl, "Go": testGo, "cargo": testCargo, "Terraform": testTerraform, "pnpm": testPnpm,
		"Docker, podman, crane, helm": testDocker, "Bazel": testBazel, "curl": testCurl, "Shell scripts": testShell,
		"nginx": testNginx, "Your own programs": testOwnProgram,
	}
	found := snippets(t)
	for heading, snippet := range found {
		if tests[heading] == nil && heading != "" || snippet == "" {
			t.Errorf("README's %q has no snippet or no test", heading)
		}
	}
	for heading, test := range tests {
		t.Run(heading, func(t *testing.T) {
			if found[heading] == "" {
				t.Fatal("README has no snippet for it")
			}
			test(t, found[heading])
		})
	}
}

// A listener is a server of somebody else's that wants credentials, and keeps
// what it gets.
type listener struct {
	*httptest.Server
	challenge []string // WWW-Authenticate
	open      bool     // serves those without credentials too

	mu   sync.Mutex
	seen []string // Authorization
}

// listen makes one. Who sends no credentials is asked for them; who sends any is
// served by h.
func listen(t *testing.T, tls bool, challenge []string, h http.HandlerFunc) *listener {
	l := &listener{challenge: challenge}
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth := r.Header.Get("Authorization")
		if auth == "" && !l.open {
			w.Header()["Www-Authenticate"] = l.challenge
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		l.mu.Lock()
		if auth != "" {
			l.seen = append(l.seen, auth)
		}
		l.mu.Unlock()
		h(w, r)
	})
	l.Server = httptest.NewUnstartedServer(serve)
	if tls {
		l.StartTLS()
	} else {
		l.Start()
	}
	t.Cleanup(l.Close)
	return l
}

// host is the listener's address as hosts has it.
func (l *listener) host() string { return l.Listener.Addr().String() }

// took is what has come since it was last asked.
func (l *listener) took() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	l.seen = nil
	return seen
}

// ca writes the listener's certificate, which is its own authority.
func (l *listener) ca(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.Certificate().Raw})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func answerJSON(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(body))
}

// toolWorld is a world with a login whose token is for host, by README's
// configuration, and with nothing of this machine's own configuration of tools.
func toolWorld(t *testing.T, host string) *world {
	t.Helper()
	w := newWorld(t, sandbox.Config{})
	w.configure(strings.ReplaceAll(snippets(t)[""], "bloq.example", host))
	w.env = append(w.env, "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "CHECKPOINT_DISABLE=1", "GOTOOLCHAIN=local", "GOSUMDB=off")
	if home, err := os.UserHomeDir(); err == nil {
		if _, err := os.Stat(home + "/.rustup"); err == nil {
			w.env = append(w.env, "RUSTUP_HOME="+home+"/.rustup") // cargo is rustup's
		}
	}
	w.start("--store", "memory")
	w.login()
	return w
}

// write writes a file below the world's home.
func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) token() string {
	w.t.Helper()
	return strings.TrimSpace(w.must("", "bloq-token").stdout)
}

// asWritten is a snippet with l's address for the example's, and where the
// programs of this run lie.
func asWritten(snippet string, l *listener) string {
	return strings.NewReplacer("https://bloq.example", l.URL, "bloq.example", l.host(), "~/.local/bin", bin, "$HOME/.local/bin", bin,
		"/home/you/.local/bin", bin).Replace(snippet)
}

func bearer(token string) string { return "Bearer " + token }

func basic(user string) func(string) string {
	return func(token string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+token))
	}
}

const loginHint = "bloq-agent login --profile default"

// proves holds a tool to what README promises. The last of its rounds is without
// a login: shows says whether the tool then lets its user see our hint.
func (w *world) proves(l *listener, header func(token string) string, shows bool, run func() result) {
	w.t.Helper()
	var expired string
	for _, round := range []string{"after the login", "after a refresh", "after an expiry"} {
		token := w.token()
		r := run()
		got := l.took()
		if r.code != 0 || len(got) == 0 {
			w.t.Fatalf("%s: exit %d, %d requests with credentials\n%s%s\ndaemon: %s", round, r.code, len(got), r.stdout, r.stderr, w.log.String())
		}
		for _, auth := range got {
			if auth != header(token) || token == expired {
				w.t.Errorf("%s: Authorization: %s\nwant %s", round, auth, header(token))
			}
		}
		if round == "after a refresh" {
			expired = w.outlived()
		}
		w.eventually("a refresh that is not too soon", func() bool {
			w.must("", "bloq-agent", "refresh")
			return w.token() != token
		})
	}
	w.must("", "bloq-agent", "logout")
	r := run()
	if got := l.took(); len(got) != 0 {
		w.t.Errorf("without a login: Authorization: %s", got)
	}
	if out := r.stdout + r.stderr; r.code == 0 || strings.Contains(out, loginHint) != shows {
		w.t.Errorf("without a login: exit %d; is the hint there? want %v\n%s", r.code, shows, out)
	}
}

// outlived is a token that has been served and has expired since.
func (w *world) outlived() string {
	w.t.Helper()
	w.setSandbox(func(c *sandbox.Config) { c.AccessTTL = time.Second })
	w.must("", "bloq-agent", "lock") // not by a refresh: of those only three are granted at once
	w.must("", "bloq-agent", "unlock")
	token := w.token()
	w.setSandbox(func(c *sandbox.Config) { c.AccessTTL = time.Hour })
	time.Sleep(1100 * time.Millisecond) // its lifetime, which is the test's subject
	return token
}

// version is the first number with dots in what a tool says of itself.
func (w *world) version(script string) string {
	w.t.Helper()
	r := w.sh(script)
	v := regexp.MustCompile(`[0-9]+(\.[0-9]+)+`).FindString(r.stdout + r.stderr)
	w.t.Logf("%s: %s", script, v)
	return v
}

// atLeast compares major.minor.
func atLeast(version string, major, minor int) bool {
	var v [2]int
	for i, s := range strings.SplitN(version, ".", 3)[:2] {
		for _, c := range []byte(s) {
			v[i] = v[i]*10 + int(c-'0')
		}
	}
	return v[0] > major || v[0] == major && v[1] >= minor
}
