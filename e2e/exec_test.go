package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

// execWorld is a world with a login whose Nodes API is a server that records
// the Authorization header of each request and knows nothing.
func execWorld(t *testing.T, config sandbox.Config) (*world, *headers) {
	w := newWorld(t, config)
	h := &headers{}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	h.url = srv.URL
	w.start("--store", "memory")
	w.login("--nodes-url", srv.URL)
	return w, h
}

// headers is a server that wants a credential and records what it gets.
type headers struct {
	url  string
	mu   sync.Mutex
	seen [][]string
}

func (h *headers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.seen = append(h.seen, r.Header.Values("Authorization"))
	h.mu.Unlock()
	http.NotFound(w, r)
}

// take is what was sent since the last call.
func (h *headers) take() [][]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := h.seen
	h.seen = nil
	return seen
}

// wantOnly wants every request since to have carried token, once.
func (h *headers) wantOnly(t *testing.T, token string) {
	t.Helper()
	seen := h.take()
	for _, got := range seen {
		if !slices.Equal(got, []string{"Bearer " + token}) {
			t.Errorf("a request carried %d credentials, or another one", len(got))
		}
	}
	if len(seen) == 0 {
		t.Error("no request came")
	}
}

func TestExecTakesTheCommandsPlace(t *testing.T) {
	w, _ := execWorld(t, sandbox.Config{})
	token := strings.TrimSpace(w.must("", "bloq-token").stdout)
	for _, tt := range []struct {
		args   []string
		code   int
		stdout string
	}{
		{[]string{"--", "sh", "-c", `printf %s "$BLOQ_ACCESS_TOKEN"`}, 0, token},
		{[]string{"sh", "-c", `printf %s "$BLOQ_ACCESS_TOKEN"`}, 0, token},
		{[]string{"--env", "NODES_TOKEN", "--", "sh", "-c", `printf %s "$NODES_TOKEN$BLOQ_ACCESS_TOKEN"`}, 0, token},
		{[]string{"--env=_x9", "-p", "default", "--min-ttl", "60", "--", "sh", "-c", `printf %s "$_x9"`}, 0, token},
		{[]string{"--", "sh", "-c", "exit 41"}, 41, ""},
		{[]string{"--", "printf", "%s|", "--env", "a b", "", "-p"}, 0, "--env|a b||-p|"},
		{[]string{"printf", "%s|", "--", "-p"}, 0, "--|-p|"},
	} {
		if r := w.run("", "bloq-agent", append([]string{"exec"}, tt.args...)...); r.code != tt.code || r.stdout != tt.stdout || r.stderr != "" {
			t.Errorf("%q: exit %d, stdout of %d bytes, %q", tt.args, r.code, len(r.stdout), r.stderr)
		}
	}
	if r := w.must("hello", "bloq-agent", "exec", "--", "cat"); r.stdout != "hello" {
		t.Errorf("stdin: %q", r.stdout)
	}
	// Nothing else of the environment changes, and a variable is replaced.
	w.env = append(w.env, "BLOQ_ACCESS_TOKEN=old", "OTHER=kept\nwith a second line")
	r := w.must("", "bloq-agent", "exec", "--", "env", "-0")
	got := strings.Split(strings.TrimSuffix(r.stdout, "\x00"), "\x00")
	var want []string
	for _, e := range w.env {
		if e != "BLOQ_ACCESS_TOKEN=old" {
			want = append(want, e)
		}
	}
	want = append(want, "BLOQ_ACCESS_TOKEN="+token)
	if !slices.Equal(got, want) {
		t.Error("the environment is another")
	}
}

// A signal reaches the command, for it is the process; what it dies of is seen.
func TestExecAndSignals(t *testing.T) {
	w, _ := execWorld(t, sandbox.Config{})
	cmd := w.command("bloq-agent", "exec", "--", "sh", "-c", `trap "exit 33" TERM; echo ready; while :; do sleep 0.01; done`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line := newLines(out); !line.Scan() || line.Text() != "ready" {
		t.Fatalf("%q", line.Text())
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 33 {
		t.Errorf("exit %d after a signal that the command handles", code)
	}
	cmd = w.command("bloq-agent", "exec", "--", "sh", "-c", `kill -KILL $$`)
	_ = cmd.Run()
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !s.Signaled() || s.Signal() != syscall.SIGKILL {
		t.Errorf("%v after a SIGKILL", cmd.ProcessState)
	}
	// Dispositions and masks are as they were: Go's runtime has its own.
	direct, err := exec.Command("cat", "/proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	status := w.must("", "bloq-agent", "exec", "--", "cat", "/proc/self/status").stdout
	for line := range strings.Lines(string(direct)) {
		if name, _, _ := strings.Cut(line, ":"); slices.Contains([]string{"SigBlk", "SigIgn", "SigCgt"}, name) && !strings.Contains(status, line) {
			t.Errorf("not %q in\n%s", line, status)
		}
	}
}

func TestExecThatStartsNothing(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	dir := w.sinkDir()
	plain, script := dir+"/plain", dir+"/script"
	for path, text := range map[string]string{plain: "x", script: "#!/nonexistent/interpreter\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_ = os.Chmod(script, 0o700)
	w.env[1] += ":" + dir
	touch := []string{"--", "touch", dir + "/started"}
	w.wants(w.run("", "bloq-agent", append([]string{"exec"}, touch...)...), 4, "connect "+w.socket(), "bloq-agent serve")
	w.start("--store", "memory")
	w.wants(w.run("", "bloq-agent", append([]string{"exec"}, touch...)...), 3, "nobody has logged in yet", "bloq-agent login")
	w.login("-p", "default")
	for _, tt := range []struct {
		args []string
		code int
		text string
	}{
		{nil, 2, "requires at least 1 arg"},
		{[]string{"--", "no-such-command"}, 127, "no-such-command: command not found"},
		{[]string{"--", dir + "/none"}, 127, dir + "/none: no such file or directory"},
		{[]string{"--", plain}, 126, plain + ": permission denied"},
		{[]string{"--", "plain"}, 126, plain + ": permission denied"},
		{[]string{"--", dir}, 126, dir + ": is a directory"},
		{[]string{"--", script}, 127, script + ": no such file or directory"},
		{append([]string{"-p", "other"}, touch...), 2, `no such profile "other"`},
		{append([]string{"--env", "A-B"}, touch...), 2, `--env "A-B"`},
		{append([]string{"--env", "9A"}, touch...), 2, `--env "9A"`},
		{append([]string{"--env", ""}, touch...), 2, `--env ""`},
		{append([]string{"--env", "A=B"}, touch...), 2, `--env "A=B"`},
		{append([]string{"--min-ttl", "x"}, touch...), 2, `--min-ttl "x"`},
		{append([]string{"--frob"}, touch...), 2, "unknown flag: --frob"},
	} {
		r := w.run("", "bloq-agent", append([]string{"exec"}, tt.args...)...)
		if r.code != tt.code || !strings.HasPrefix(r.stderr, "bloq-agent: error: "+tt.text) || r.stdout != "" {
			t.Errorf("%q: exit %d, %q", tt.args, r.code, r.stderr)
		}
	}
	w.must("", "bloq-agent", "logout")
	if r := w.run("", "bloq-agent", append([]string{"exec", "-p", "default"}, touch...)...); r.code == 0 {
		t.Errorf("after a logout: %+v", r)
	}
	if !w.gone(dir + "/started")() {
		t.Error("something was started")
	}
}

// A token that ends soon is a warning and no more.
func TestExecWithATokenThatEndsSoon(t *testing.T) {
	w, _ := execWorld(t, sandbox.Config{AccessTTL: time.Minute})
	r := w.must("", "bloq-agent", "exec", "--", "sh", "-c", "echo ran")
	if r.stdout != "ran\n" || !strings.HasPrefix(r.stderr, "bloq-agent: warning: the token is good for ") || !strings.HasSuffix(r.stderr, "s only, and sh gets no other\n") {
		t.Errorf("%+v", r)
	}
	if r := w.must("", "bloq-agent", "exec", "--min-ttl", "10s", "--", "true"); r.stderr != "" {
		t.Errorf("%+v", r)
	}
}

func TestExecForGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git: apt-get install -y --no-install-recommends git")
	}
	w, h := execWorld(t, sandbox.Config{})
	other := &headers{}
	srv := httptest.NewServer(other)
	t.Cleanup(srv.Close)
	token := strings.TrimSpace(w.must("", "bloq-token").stdout)
	w.env = append(w.env, "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "http_proxy=", "NO_PROXY=*")
	git := []string{"exec", "--env", "git", "--", "git"}
	w.run("", "bloq-agent", append(git, "ls-remote", h.url+"/x.git")...)
	h.wantOnly(t, token)
	w.run("", "bloq-agent", append(git, "ls-remote", srv.URL+"/x.git")...)
	if seen := other.take(); len(seen) == 0 || slices.ContainsFunc(seen, func(s []string) bool { return len(s) > 0 }) {
		t.Error("another server got the token, or nothing at all")
	}
	// Inside another exec there is still one header; the settings that were
	// there stay.
	w.env = append(w.env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=user.name", "GIT_CONFIG_VALUE_0=Somebody")
	agent := filepath.Join(bin, "bloq-agent")
	w.run("", "bloq-agent", "exec", "--env", "git", "--", agent, "exec", "--env", "git", "--", "git", "ls-remote", h.url+"/x.git")
	h.wantOnly(t, token)
	if r := w.must("", "bloq-agent", append(git, "config", "user.name")...); r.stdout != "Somebody\n" {
		t.Errorf("%+v", r)
	}
	w.env = append(w.env, "GIT_CONFIG_COUNT=many")
	w.wants(w.run("", "bloq-agent", append(git, "version")...), 2, "GIT_CONFIG_COUNT", "unset GIT_CONFIG_COUNT")
}

// The presets are for the profile's hosts, whatever the Nodes API is.
func TestExecIsForTheHostsOfTheProfile(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.configure("[profile.default]\nhosts = [\"127.0.0.1:4711\", \"x.bloq.example\", \"*.y.example\"]\n")
	w.start("--store", "memory")
	w.login()
	for preset, want := range map[string][]string{
		"git": {
			"=http.https://127.0.0.1:4711/.extraHeader", "=http.https://x.bloq.example/.extraHeader", "=http.http://127.0.0.1:4711/.extraHeader",
			"=http.https://127.0.0.1:4711/.followRedirects", "=http.https://x.bloq.example/.followRedirects", "=http.http://127.0.0.1:4711/.followRedirects",
			"=http.http://127.0.0.1:4711/.proxy", "GIT_CONFIG_COUNT=7",
		},
		"npm": {
			"npm_config_//127.0.0.1:4711/:_authToken=eyJ", "npm_config_//x.bloq.example/:_authToken=eyJ", "\nnpm_config_noproxy=127.0.0.1\n",
			"NODE_OPTIONS=--import=data:text/javascript,",
		},
	} {
		env := w.must("", "bloq-agent", "exec", "--env", preset, "--", "/usr/bin/env").stdout
		for _, s := range want {
			if !strings.Contains(env, s) {
				t.Errorf("%s: no %s", preset, s)
			}
		}
		if strings.Contains(env, w.url+"/") || strings.Contains(env, "y.example") {
			t.Errorf("%s: another host is in it", preset)
		}
	}
	w.configure("[profile.default]\nhosts = []\n")
	must(t, w.daemon.Process.Signal(hup))
	w.await(w.events(), "the reload", func(ipc.Event) bool { return len(w.status().Hosts) == 0 })
	for _, preset := range []string{"git", "npm"} {
		w.wants(w.run("", "bloq-agent", "exec", "--env", preset, "--", "true"), ipc.ExitUsage, "name no server", "bloq-agent exec --env NAME")
	}
}

func TestExecForNpm(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("no npm: apt-get install -y --no-install-recommends npm")
	}
	w, h := execWorld(t, sandbox.Config{})
	other := &headers{}
	srv := httptest.NewServer(other)
	t.Cleanup(srv.Close)
	token := strings.TrimSpace(w.must("", "bloq-token").stdout)
	w.env = append(w.env, "NO_UPDATE_NOTIFIER=1", "NO_PROXY=*")
	view := func(url string) {
		w.run("", "bloq-agent", "exec", "--env", "npm", "--", "npm", "view", "--fetch-retries=0",
			fmt.Sprintf("--registry=%s/npm/", url), "no-such-package-of-ours")
	}
	view(h.url)
	h.wantOnly(t, token)
	view(srv.URL)
	if seen := other.take(); len(seen) == 0 || slices.ContainsFunc(seen, func(s []string) bool { return len(s) > 0 }) {
		t.Error("another registry got the token, or nothing at all")
	}
	// Another registry gets its own token. What node is to do besides stays, and an
	// exec within an exec adds nothing to it.
	w.env = append(w.env, "npm_config_//"+strings.TrimPrefix(srv.URL, "http://")+"/:_authToken=theirs", "NODE_OPTIONS=--no-warnings")
	view(srv.URL)
	other.wantOnly(t, "theirs")
	options := w.must("", "bloq-agent", "exec", "--env", "npm", "--", filepath.Join(bin, "bloq-agent"), "exec", "--env", "npm", "--", "/usr/bin/printenv", "NODE_OPTIONS").stdout
	if !strings.HasPrefix(options, "--no-warnings --import=data:") || strings.Count(options, "--import=") != 1 || strings.Contains(options, token) {
		t.Errorf("%s", options)
	}
}
