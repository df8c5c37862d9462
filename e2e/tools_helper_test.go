package e2e

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/daemon/dialect"
)

// Without a daemon: what sits in a global configuration has nothing to say, and
// tells a person why; the rest fails.
func TestHelpersWithoutADaemon(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	const keychain = "credentials not found in native keychain\n"
	for _, tt := range []struct {
		stdin string
		args  []string
		code  int
		out   string
	}{
		{"protocol=https\nhost=x\n", []string{"git", "get"}, 0, ""},
		{"protocol=https\nhost=x\n", []string{"git", "store"}, 0, ""},
		{"protocol=https\nhost=x\n", []string{"git", "erase"}, 0, ""},
		{"https://x", []string{"docker", "get"}, 1, keychain},
		{"{}", []string{"docker", "store"}, 1, keychain},
		{"https://x", []string{"docker", "erase"}, 0, ""},
		{"unused", []string{"docker", "list"}, 0, "{}\n"},
		{"{}\n{}\n", []string{"cargo", "--cargo-plugin"}, 0, "{\"v\":[1]}\n" + strings.Repeat("{\"Err\":{\"kind\":\"url-not-supported\"}}\n", 2)},
		{"", []string{"goauth"}, 0, ""},
		{"HTTP/1.1 401 Unauthorized\n\n", []string{"goauth", "https://x"}, 0, ""},
		{`{"uri":"https://x"}`, []string{"bazel", "get"}, 0, "{\"headers\":{}}\n"},
		{"", []string{"terraform", "get", "x"}, 4, ""},
		{"", []string{"kubectl"}, 4, ""},
		{"", []string{"bearer"}, 4, ""},
		{"", []string{"curl"}, 4, ""},
		{"", []string{"env"}, 4, ""},
		{"", []string{"token"}, 4, ""},
	} {
		r := w.run(tt.stdin, "bloq-token", tt.args...)
		if r.code != tt.code || r.stdout != tt.out {
			t.Errorf("%q: %+v", tt.args, r)
		}
		// Cargo's is asked twice.
		if !strings.Contains(r.stderr, "error: connect "+w.socket()) || !strings.Contains(r.stderr, "hint: bloq-agent serve") {
			t.Errorf("%q: %s", tt.args, r.stderr)
		}
	}
}

// The helper is itself by each of its names, with our flags before the tool's
// words.
func TestTheHelpersNames(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.configure("[profile.work]\nhosts = [\"bloq.example\"]\n[profile.other]\n")
	w.start("--store", "memory")
	w.login("-p", "work")
	token := strings.TrimSpace(w.must("", "bloq-token", "-p", "work").stdout)
	for _, tt := range []struct {
		name, stdin string
		args        []string
		want        string
	}{
		{"git-credential-bloq", "protocol=https\nhost=bloq.example\n", []string{"get"}, "\npassword=" + token + "\n"},
		{"docker-credential-bloq", "bloq.example", []string{"get"}, `"Secret":"` + token + `"`},
		{"docker-credential-bloq", "unused", []string{"list"}, "{}\n"},
		{"terraform-credentials-bloq", "", []string{"get", "bloq.example"}, `{"token":"` + token + `"}`},
		{"cargo-credential-bloq", `{"v":1,"registry":{"index-url":"https://bloq.example/"},"kind":"get","args":["-p","work"]}` + "\n", []string{"--cargo-plugin"}, `"token":"Bearer ` + token + `"`},
		{"bloq-token-bazel", `{"uri":"https://bloq.example/"}`, []string{"get"}, `["Bearer ` + token + `"]`},
		{"bloq-token-pnpm", "", nil, "Bearer " + token + "\n"},
	} {
		for _, flags := range [][]string{nil, {"-p", "work"}, {"--profile=work"}, {"--timeout", "5", "--min-ttl=1m", "-p=work"}} {
			if flags == nil && tt.name == "bloq-token-pnpm" {
				continue // two profiles, and pnpm names no host
			}
			r := w.run(tt.stdin, tt.name, append(slices.Clone(flags), tt.args...)...)
			if r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, tt.want) {
				t.Errorf("%s %q: %+v", tt.name, append(flags, tt.args...), r)
			}
		}
	}
	// A mistake of ours is told, and is in nobody's way.
	r := w.run("protocol=https\nhost=bloq.example\n", "git-credential-bloq", "-p", "wrok", "get")
	if r.code != 0 || r.stdout != "" || !strings.Contains(r.stderr, `did you mean "work"?`) {
		t.Errorf("%+v", r)
	}
	if r := w.run("", "terraform-credentials-bloq", "forget", "bloq.example"); r.code != 2 || !strings.Contains(r.stderr, "bloq-agent logout") {
		t.Errorf("%+v", r)
	}
}

// A tool may leave its own stdin open: what reads of it to an end that does not
// come hangs the tool.
func TestStdinIsNotReadWithoutNeed(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login()
	for _, args := range [][]string{
		{"token"}, {"header"}, {"bearer"}, {"json"}, {"curl"}, {"env"}, {"kubectl"}, {"goauth"}, {"terraform", "get", "x"},
	} {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := write.WriteString("unread\n"); err != nil {
			t.Fatal(err)
		}
		cmd := w.command("bloq-token", args...)
		cmd.Stdin = read
		if r := w.finish(cmd); r.code != 0 || r.stdout == "" {
			t.Errorf("%q with a stdin that does not end: %+v", args, r)
		}
		_ = write.Close()
		if rest, _ := io.ReadAll(read); string(rest) != "unread\n" {
			t.Errorf("%q took %q of stdin less than there was", args, rest)
		}
		_ = read.Close()
	}
}

// Cargo writes a line only when it has read the answer to the one before, and
// the first when it has been greeted.
func TestCargoLineByLine(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.configure("[profile.default]\nhosts = [\"bloq.example\"]\n")
	w.start("--store", "memory")
	w.login()
	cmd := w.command("cargo-credential-bloq", "--cargo-plugin")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	guard := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer guard.Stop()
	answers := bufio.NewScanner(out)
	wants := func(say, want string) {
		t.Helper()
		if _, err := io.WriteString(in, say); err != nil {
			t.Fatal(err)
		}
		if !answers.Scan() || !strings.HasPrefix(answers.Text(), want) {
			t.Fatalf("%q, want %q", answers.Text(), want)
		}
	}
	ask := func(host string) string {
		return `{"v":1,"registry":{"index-url":"sparse+https://` + host + `/index/"},"kind":"get","operation":"read","args":[]}` + "\n"
	}
	wants("", `{"v":[1]}`)
	wants(ask("bloq.example"), `{"Ok":{"cache":"expires",`)
	wants(ask("other.example"), `{"Err":{"kind":"url-not-supported"}}`)
	w.must("", "bloq-agent", "refresh")
	wants(ask("bloq.example"), `{"Ok":{"cache":"expires",`)
	if !strings.Contains(answers.Text(), w.token()) {
		t.Error("the second answer is not the new token")
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestTooMuchForTheHelper(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.configure("[profile.default]\nhosts = [\"bloq.example\"]\n")
	w.start("--store", "memory")
	w.login()
	git := "protocol=https\nhost=bloq.example\n"
	if r := w.run(git+strings.Repeat("wwwauth[]=Bearer\n", 3000), "bloq-token", "git", "get"); r.code != 0 || !strings.Contains(r.stdout, w.token()) {
		t.Errorf("50 KiB on stdin: %+v", r)
	}
	long := strings.Repeat("x", 64<<10)
	for _, args := range [][]string{{"git", "get"}, {"docker", "get"}, {"bazel", "get"}, {"goauth", "https://bloq.example"}} {
		w.wants(w.run(long+"x", "bloq-token", args...), 2, "stdin: longer than 64 KiB", "")
	}
	if r := w.run(long+"x", "bloq-token", "cargo", "--cargo-plugin"); r.code != 2 || !strings.Contains(r.stderr, "stdin: longer than 64 KiB") {
		t.Errorf("cargo: %+v", r)
	}
	info := func(n int) result {
		cmd := w.command("bloq-token", "kubectl")
		head, tail := `{"apiVersion":"client.authentication.k8s.io/v1beta1","x":"`, `"}`
		cmd.Env = append(slices.Clone(w.env), "KUBERNETES_EXEC_INFO="+head+strings.Repeat("x", n-len(head)-len(tail))+tail)
		return w.finish(cmd)
	}
	if r := info(64 << 10); r.code != 0 || !strings.Contains(r.stdout, "v1beta1") {
		t.Errorf("64 KiB of KUBERNETES_EXEC_INFO: %+v", r)
	}
	w.wants(info(64<<10+1), 2, "KUBERNETES_EXEC_INFO is longer than 64 KiB", "")
}

// Tokens are what an endpoint says. Whatever that is, a shell and curl take it
// for a value and not for words of theirs.
func TestHostileTokensInShAndCurl(t *testing.T) {
	need(t, "curl")
	l := listen(t, false, nil, func(http.ResponseWriter, *http.Request) {})
	w := newWorld(t, sandbox.Config{})
	render := func(form, token string) string {
		d, ok := dialect.Lookup(form)
		if !ok {
			t.Fatal(form)
		}
		return string(d.Render(dialect.Question{}, dialect.Token{Value: []byte(token)}).Stdout)
	}
	pipe := func(stdin, script string) string {
		cmd := exec.Command("sh", "-c", script)
		cmd.Env, cmd.Dir, cmd.Stdin = w.env, w.dir, strings.NewReader(stdin)
		r := w.finish(cmd)
		if r.code != 0 || r.stderr != "" {
			t.Errorf("%q: %+v", stdin, r)
		}
		return r.stdout
	}
	for _, token := range []string{
		"eyJ.eyJ.sig", "", "'", "''", `"`, `\`, `\'`, `a'; touch ruined; '`, "$(touch ruined)", "`touch ruined`", "${HOME}", "!x", "a b\tc", "-n", "a\nb", "~", "*", "\x01\x7f", "ä\xff",
	} {
		if got := pipe(render("env", token), `eval "$(cat)"; printf %s "$BLOQ_ACCESS_TOKEN"`); got != strings.TrimRight(token, "\n") {
			t.Errorf("sh reads %q as %q", token, got)
		}
		if strings.ContainsAny(token, "\n\x01\x7f\t") || token == "" {
			continue // no header can hold these: what the server would see is not what was written
		}
		pipe(render("curl", token), "curl -sS -o /dev/null -K - "+l.URL)
		if got := l.took(); len(got) != 1 || got[0] != strings.TrimRight("Bearer "+token, " ") {
			t.Errorf("curl sends %q as %q", token, got)
		}
	}
	// A line's end in a token must not become a second header, or an option.
	if got := pipe(render("curl", "x\"\nurl = \"file:///proc/self/environ\"\n"), "curl -s -K - "+l.URL+" || true"); strings.Contains(got, "PATH=") {
		t.Errorf("curl took a token for an option: %q", got)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "ruined")); err == nil {
		t.Error("a token was run")
	}
}

// The account token is for people: a flag in a tool's configuration does not get
// it. And a name that no profile can have, in a variable that a tool inherits,
// breaks nothing for other hosts.
func TestToolsGetAccessTokensAndNoTrouble(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login()
	for _, form := range []string{"git", "docker", "cargo", "goauth", "bazel", "terraform", "kubectl"} {
		w.wants(w.run("", "bloq-token", "--account", form), 2, "--account is for people", "bloq-token --help")
	}
	w.env = append(w.env, "BLOQ_PROFILE=Bad Name")
	for form, want := range map[string]result{
		"git":    {0, "", ""},
		"goauth": {0, "", ""},
		"bazel":  {0, `{"headers":{}}` + "\n", ""},
		"docker": {1, "credentials not found in native keychain\n", ""},
	} {
		args := map[string][]string{"goauth": {form}}[form]
		if args == nil {
			args = []string{form, "get"}
		}
		r := w.run("", "bloq-token", args...)
		if r.code != want.code || r.stdout != want.stdout || !strings.Contains(r.stderr, "no profile can be called") {
			t.Errorf("%s: %+v", form, r)
		}
	}
	w.wants(w.run("", "bloq-token"), 2, "no profile can be called", "bloq-token --help")
}
