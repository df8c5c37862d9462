package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
)

// wants checks what every failure must look like: the documented exit code,
// nothing on stdout, one error line, at most one hint.
func (w *world) wants(r result, code int, text, hint string) {
	w.t.Helper()
	lines := strings.Split(strings.TrimSuffix(r.stderr, "\n"), "\n")
	if r.code != code || r.stdout != "" || !strings.Contains(lines[0], ": error: ") || !strings.Contains(lines[0], text) {
		w.t.Errorf("exit %d, want %d; want %q in\n%s%s", r.code, code, text, r.stdout, r.stderr)
	}
	if len(lines) > 2 || len(lines) == 2 && !strings.Contains(lines[1], ": hint: ") {
		w.t.Errorf("more than one error and one hint:\n%s", r.stderr)
	}
	if !strings.Contains(r.stderr, hint) || hint == "" && len(lines) != 1 {
		w.t.Errorf("want the hint %q in\n%s", hint, r.stderr)
	}
}

func TestBadInput(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login("-p", "work")
	before := w.state()
	where := []string{"--accounts-url", w.url}
	login := func(args ...string) []string {
		return append(append([]string{"login", "--user", w.user}, where...), args...)
	}
	add := func(args ...string) []string { return append(append([]string{"add", "-p", "work"}, where...), args...) }
	for name, tt := range map[string]struct {
		stdin      string
		args       []string
		code       int
		text, hint string
	}{
		"wrong password":       {"nope\n", login("--password-stdin"), 3, "wrong user or password", ""},
		"wrong client secret":  {"nope\n", add("--client-id", "abc", "--client-secret-stdin"), 3, "wrong client ID or client secret", ""},
		"malformed refresh":    {"nope\n", add("--refresh-token-stdin"), 2, "malformed", ""},
		"expired refresh":      {expiredJWT, add("--refresh-token-stdin"), 2, "expired on 2001-09-09", ""},
		"foreign refresh":      {foreignJWT, add("--refresh-token-stdin"), 3, "refused the refresh token", "bloq-agent login --profile work"},
		"empty stdin":          {"", add("--refresh-token-stdin"), 2, "holds no refresh token", ""},
		"two lines":            {"a\nb\n", add("--refresh-token-stdin"), 2, "more than one line", ""},
		"nothing to add":       {"", add(), 2, "give one of", "bloq-agent add --help"},
		"secret without ID":    {"x", add("--client-secret-stdin"), 2, "needs --client-id", "bloq-agent add --help"},
		"no terminal":          {"", login(), 2, "no terminal", "--password-stdin"},
		"plain http":           {w.pass, []string{"login", "--accounts-url", "http://bloq.example", "--user", w.user, "--password-stdin"}, 2, "plain http", ""},
		"localhost":            {w.pass, []string{"login", "--accounts-url", "http://localhost:4000", "--user", w.user, "--password-stdin"}, 2, "write 127.0.0.1", ""},
		"not a URL":            {w.pass, []string{"login", "--accounts-url", "bloq", "--user", w.user, "--password-stdin"}, 2, "not an absolute URL", ""},
		"unknown environment":  {w.pass, []string{"login", "--environment", "moon", "--user", w.user, "--password-stdin"}, 2, "prod, staging or local", ""},
		"unknown store":        {w.pass, login("--store", "cellar", "--password-stdin"), 2, "cellar", ""},
		"bad profile name":     {w.pass, login("-p", "../x", "--password-stdin"), 2, "no profile can be called", ""},
		"unknown profile":      {"", []string{"refresh", "-p", "wrok"}, 2, `no such profile "wrok"`, `did you mean "work"?`},
		"far off profile":      {"", []string{"logout", "-p", "elsewhere"}, 2, `no such profile "elsewhere"`, "bloq-agent status"},
		"unknown command":      {"", []string{"frob"}, 2, `bloq-agent has no command "frob"`, "bloq-agent --help"},
		"unknown subcommand":   {"", []string{"keys", "frob"}, 2, `bloq-agent keys has no command "frob"`, "bloq-agent keys --help"},
		"help of nothing":      {"", []string{"help", "nonsense"}, 2, `there is no command "nonsense"`, "bloq-agent --help"},
		"help of half nothing": {"", []string{"help", "keys", "nonsense"}, 2, `there is no command "keys nonsense"`, "bloq-agent --help"},
		"unknown flag":         {"", []string{"status", "--frob"}, 2, "--frob", "bloq-agent status --help"},
		"leftover argument":    {"", []string{"status", "x"}, 2, `bloq-agent status takes no argument "x"`, "bloq-agent status --help"},
		"missing argument":     {"", []string{"keys", "delete"}, 2, "bloq-agent keys delete needs ID", "bloq-agent keys delete --help"},
		"too many arguments":   {"", []string{"keys", "delete", "a", "b"}, 2, `takes one ID; "b" is too much`, "bloq-agent keys delete --help"},
		"unknown client keys":  {"", []string{"keys", "delete", "abc"}, 2, `there are no client keys "abc"`, "bloq-agent keys list"},
		"hostile client keys":  {"", []string{"keys", "delete", "../x"}, 2, "no client ID", ""},
		"bad store of serve":   {"", []string{"serve", "--store", "cellar"}, 2, "keyring, file or memory", "bloq-agent serve --help"},
		"bad level of serve":   {"", []string{"serve", "--log-level", "loud"}, 2, "loud", "bloq-agent serve --help"},
		"bad format of serve":  {"", []string{"serve", "--log-format", "xml"}, 2, "xml", "bloq-agent serve --help"},
		"second daemon":        {"", []string{"serve"}, 1, "bloq-agent is already running (pid ", "bloq-agent status"},
		"path too long":        {"", []string{"serve", "--socket", "/" + strings.Repeat("x", 107)}, 2, "longer than 107 bytes", "--socket"},
		"path too long to ask": {"", []string{"status", "--socket", "/" + strings.Repeat("x", 107)}, 2, "longer than 107 bytes", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w.wants(w.run(tt.stdin, "bloq-agent", tt.args...), tt.code, tt.text, tt.hint)
		})
	}
	for name, tt := range map[string]struct {
		args       []string
		code       int
		text, hint string
	}{
		"nonsense min-ttl": {[]string{"--min-ttl", "soon"}, 2, `--min-ttl "soon"`, "bloq-token --help"},
		"negative min-ttl": {[]string{"--min-ttl=-5s"}, 2, "--min-ttl", "bloq-token --help"},
		"nonsense timeout": {[]string{"--timeout", "0"}, 2, "--timeout", "bloq-token --help"},
		"missing value":    {[]string{"--profile"}, 2, "needs a value", "bloq-token --help"},
		"unknown flag":     {[]string{"--frob"}, 2, "--frob", "bloq-token --help"},
		"unknown form":     {[]string{"yaml"}, 2, "yaml", "bloq-token --help"},
		"flag after form":  {[]string{"header", "--profile=work"}, 2, "flags come before it", "bloq-token --help"},
		"bad profile":      {[]string{"-p", "../x"}, 2, "no profile can be called", "bloq-token --help"},
		"unknown profile":  {[]string{"-p", "wrok"}, 2, `no such profile "wrok"`, `did you mean "work"?`},
		"no daemon":        {[]string{"--socket", w.dir + "/none"}, 4, "connect " + w.dir + "/none: no such file", "bloq-agent serve --socket " + w.dir + "/none\n"},
		"path too long":    {[]string{"--socket", "/" + strings.Repeat("x", 107)}, 2, "longer than 107 bytes", ""},
	} {
		t.Run("bloq-token "+name, func(t *testing.T) {
			w.wants(w.run("", "bloq-token", tt.args...), tt.code, tt.text, tt.hint)
		})
	}
	if after := w.state(); after != before {
		t.Errorf("bad input changed profiles.json:\n%s\n%s", before, after)
	}
	w.must("", "bloq-token", "-p", "work")
	for _, args := range [][]string{{"help"}, {"help", "keys", "delete"}, {"keys", "delete", "--help"}, {"keys"}, {}} {
		if r := w.must("", "bloq-agent", args...); !strings.Contains(r.stdout, "Usage:") || r.stderr != "" {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

// RS256 headers, a body, and a signature of nobody.
const (
	expiredJWT = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDB9.c2ln"
	foreignJWT = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQwMDAwMDAwMDB9.c2ln"
)

func (w *world) state() string {
	w.t.Helper()
	b, err := os.ReadFile(w.dir + "/state/bloq-agent/profiles.json")
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func TestNoDaemon(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	for _, args := range [][]string{{"status"}, {"refresh"}, {"logout"}, {"keys", "list"}, {"status", "--watch"}, {"login", "--user", "x", "--password-stdin"}} {
		w.wants(w.run("x\n", "bloq-agent", args...), 4, "connect "+w.socket(), "bloq-agent serve\n")
		elsewhere := w.dir + "/a place"
		w.wants(w.run("x\n", "bloq-agent", append(args, "--socket", elsewhere)...), 4, "connect "+elsewhere, "bloq-agent serve --socket '"+elsewhere+"'\n")
	}
	// Nothing was created at the endpoint before the daemon was asked.
	if n := len(w.api.Load().Stats().Routes); n != 0 {
		t.Errorf("%d routes of the endpoint were called", n)
	}
}

func TestSocketDirectories(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	open := filepath.Join(w.dir, "open")
	if err := os.Mkdir(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	w.wants(w.run("", "bloq-agent", "serve", "--socket", open+"/s"), 2, "can be written by others", "chmod go-w "+open)
	file := filepath.Join(w.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.wants(w.run("", "bloq-agent", "serve", "--socket", file+"/s"), 1, "not a directory", "")
	w.wants(w.run("", "bloq-agent", "serve", "--socket", file), 1, "is in the way and is no socket", "mv "+file+" "+file+".old")

	// A dead daemon's socket is replaced; nothing answers on it.
	dead := filepath.Join(w.dir, "bloq-agent", "agent.sock")
	if err := os.MkdirAll(filepath.Dir(dead), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	w.start("--store", "memory")
	w.must("", "bloq-agent", "status")
}

func TestConfigurationMistakes(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	config := filepath.Join(w.dir, "config", "bloq-agent", "config.toml")
	if err := os.MkdirAll(filepath.Dir(config), 0o700); err != nil {
		t.Fatal(err)
	}
	bad := "log_level = \"loud\"\nfrobnicate = 1\n\n[profile.work]\nenviroment = \"prod\"\ntoken_url = \"http://bloq.example/auth\"\n"
	if err := os.WriteFile(config, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	r := w.run("", "bloq-agent", "config", "check")
	for _, want := range []string{config + ": log_level", config + `:2: unknown key "frobnicate"`, config + `:5: unknown key "profile.work.enviroment"`, config + ": profile.work.token_url"} {
		if r.code != 5 || !strings.Contains(r.stderr, want) {
			t.Errorf("exit %d; want %q in\n%s", r.code, want, r.stderr)
		}
	}
	// The daemon runs all the same, and says so to whoever asks.
	w.start("--store", "memory")
	w.wants(w.run("", "bloq-token"), 5, config+`:2: unknown key "frobnicate"`, "bloq-agent config check")
	if w.log.contains(0, "keeping the one before") || !w.log.contains(0, "nothing is served until it is mended") {
		t.Errorf("what holds now?\n%s", w.log.String())
	}
	events := w.events()
	if err := os.WriteFile(config, []byte("log_level = \"debug\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.await(events, "the mended file is taken", isReload)
	w.login()
	token := w.must("", "bloq-token").stdout

	// A file that is broken again keeps what was in force.
	if err := os.WriteFile(config, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.daemon.Process.Signal(hup); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(w.must("", "bloq-agent", "status", "--json").stdout, "frobnicate") {
		if time.Now().After(deadline) {
			t.Fatal("status does not show the broken file")
		}
	}
	if !w.log.contains(0, "keeping the one before") {
		t.Errorf("what holds now?\n%s", w.log.String())
	}
	if got := w.must("", "bloq-token").stdout; got != token {
		t.Error("a broken file changed the token")
	}
	// Another origin must not get a token that it was not made for.
	other := "[profile.default]\ntoken_url = \"https://elsewhere.example/auth/token\"\n"
	if err := os.WriteFile(config, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	w.await(events, "the file with another origin is taken", isReload)
	for {
		r = w.run("", "bloq-token")
		if r.code != 0 {
			break
		}
		if time.Now().After(deadline.Add(20 * time.Second)) {
			t.Fatal("the old token is still served")
		}
	}
	w.wants(r, 5, "belongs to "+w.url, "bloq-agent login")
}
