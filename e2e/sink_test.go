package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

// sinkDir makes a directory that sinks may be in.
func (w *world) sinkDir() string {
	w.t.Helper()
	dir := filepath.Join(w.dir, "sinks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	return dir
}

// eventually waits for what has no event of its own.
func (w *world) eventually(what string, f func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("did not happen in 20 s: %s\n%s", what, w.log.String())
		}
	}
}

func content(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

// holdsToken reports whether the file at path holds what bloq-token prints.
func (w *world) holdsToken(path string) func() bool {
	return func() bool { return content(path) == w.must("", "bloq-token").stdout }
}

func (w *world) gone(path string) func() bool {
	return func() bool {
		_, err := os.Lstat(path)
		return os.IsNotExist(err)
	}
}

const tokenSink = `
[[profile.default.sink]]
path = "%%t/sinks/%s"
`

// Prometheus reads its credentials_file on every request, whatever else
// happens; every token it finds must be whole, and good.
func TestPrometheusReadsASinkOnEveryRequest(t *testing.T) {
	w := newWorld(t, sandbox.Config{AccessTTL: 4 * time.Second, Rotation: sandbox.Rotation{On: true}})
	path := w.sinkDir() + "/bloq.token"
	w.configure(fmt.Sprintf(tokenSink, "bloq.token"))
	w.start("--store", "memory")
	w.login()
	w.eventually("the first token", w.holdsToken(path))
	stop := make(chan struct{})
	var scraper sync.WaitGroup
	seen := map[string]bool{}
	scraper.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				t.Logf("%d reads, %d tokens", n, len(seen))
				return
			default:
			}
			token := content(path)
			if !strings.HasSuffix(token, "\n") || strings.Count(token, ".") != 2 {
				t.Errorf("read %d of %d bytes is no token", n, len(token))
				return
			}
			token = strings.TrimSpace(token) // as Prometheus does
			if fresh := !seen[token]; fresh || n%100 == 0 {
				seen[token] = true
				if code := w.nodes(token); code != http.StatusOK {
					t.Errorf("the Nodes API answered %d", code)
					return
				}
			}
		}
	})
	for range 20 {
		w.login()
	}
	w.eventually("the last token", w.holdsToken(path))
	close(stop)
	scraper.Wait()
	if len(seen) < 20 {
		t.Errorf("only %d tokens were seen", len(seen))
	}
	s := w.status()
	if len(s.Sinks) != 1 || s.Sinks[0].Path != path || s.Sinks[0].Format != "token" || s.Sinks[0].WrittenAt.IsZero() || s.Sinks[0].Error != "" {
		t.Errorf("%+v", s.Sinks)
	}
}

// refreshNow is `bloq-agent refresh` without a process.
func (w *world) refreshNow() {
	w.t.Helper()
	answer, err := w.client().Post("http://bloq-agent"+ipc.RouteRefresh, "application/json", strings.NewReader("{}"))
	if err != nil {
		w.t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		w.t.Fatalf("refresh: %s", answer.Status)
	}
}

func TestEveryFormatOfASink(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	dir := w.sinkDir()
	config := ""
	for format, mode := range map[string]string{"token": "0600", "header": "0640", "env": "0400", "json": "0644"} {
		config += fmt.Sprintf(tokenSink+"format = %q\nmode = %q\n", format, format, mode)
	}
	w.configure(config)
	w.start("--store", "memory")
	w.login()
	token := strings.TrimSpace(w.must("", "bloq-token").stdout)
	for format, want := range map[string]string{
		"token": token + "\n", "header": "Authorization: Bearer " + token + "\n", "env": "BLOQ_ACCESS_TOKEN='" + token + "'\n",
		"json": w.must("", "bloq-token", "json").stdout,
	} {
		w.eventually(format, func() bool { return content(filepath.Join(dir, format)) == want })
	}
	for name, want := range map[string]os.FileMode{"token": 0o600, "header": 0o640, "env": 0o400, "json": 0o644} {
		fi, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || fi.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", name, fi.Mode(), err, want)
		}
	}
	out, err := exec.Command("sh", "-c", `. "$1"; printf %s "$BLOQ_ACCESS_TOKEN"`, "sh", filepath.Join(dir, "env")).Output()
	if string(out) != token || err != nil {
		t.Errorf("sh reads another token, %v", err)
	}
}

// What takes a login away takes the token out of its files too, before the
// command returns.
func TestSinksAreRemoved(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	dir := w.sinkDir()
	a, b := dir+"/a", dir+"/b"
	both := fmt.Sprintf(tokenSink+tokenSink, "a", "b")
	w.configure(both)
	w.start("--store", "file")
	w.login()
	w.eventually("both", func() bool { return w.holdsToken(a)() && w.holdsToken(b)() })

	w.must("", "bloq-agent", "lock")
	if !w.gone(a)() || !w.gone(b)() {
		t.Error("lock left a token")
	}
	w.must("", "bloq-agent", "unlock")
	w.eventually("both after unlock", func() bool { return w.holdsToken(a)() && w.holdsToken(b)() })

	w.configure(fmt.Sprintf(tokenSink, "b"))
	w.eventually("the dropped one is removed", w.gone(a))
	w.configure("store = \n")
	w.eventually("the bad file is noticed", func() bool {
		return strings.Contains(w.must("", "bloq-agent", "status", "--json").stdout, `"error"`)
	})
	if w.gone(b)() {
		t.Error("a configuration that is not taken removed a file")
	}
	w.configure(both)
	w.eventually("the added one", w.holdsToken(a))

	// What somebody else has put there since is not ours to remove.
	must(t, os.WriteFile(dir+"/mine", []byte("mine"), 0o600))
	must(t, os.Rename(dir+"/mine", b))
	w.wants(w.run("", "bloq-agent", "logout"), ipc.ExitUnavailable, "forgot profile default, but "+foreign(b), "rm "+b)
	if !w.gone(a)() || content(b) != "mine" {
		t.Error("logout left a token, or removed a foreign file")
	}
	w.login()
	w.eventually("the other after another login", w.holdsToken(a))
	if content(b) != "mine" {
		t.Error("a foreign file was replaced")
	}
}

// A file outlives the daemon, which is the point of it; what a run before has
// written is known to the next.
func TestSinksOverARestart(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	dir := w.sinkDir()
	a, b := dir+"/a", dir+"/b"
	w.configure(fmt.Sprintf(tokenSink+tokenSink, "a", "b"))
	w.start("--store", "file")
	w.login()
	w.eventually("both", func() bool { return w.holdsToken(a)() && w.holdsToken(b)() })
	old := content(a)
	w.stop()
	if content(a) != old {
		t.Error("the end of the daemon changed the file")
	}
	w.configure(fmt.Sprintf(tokenSink, "a"))
	w.start("--store", "file")
	w.eventually("the dropped one is removed", w.gone(b))
	w.eventually("the token of the new run", w.holdsToken(a))

	// A kill in the middle of a lock comes back locked, without the token.
	_ = w.daemon.Process.Kill()
	_ = w.daemon.Wait()
	if err := os.WriteFile(w.dir+"/state/bloq-agent/locked", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.start("--store", "file")
	w.eventually("a locked daemon removes it", w.gone(a))
}

// A sink that cannot be written disturbs nothing, says so once, and works again
// when the reason is gone.
func TestASinkThatFails(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	dir := w.sinkDir()
	path := dir + "/x"
	w.configure(fmt.Sprintf(tokenSink+tokenSink, "x", "good"))
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	w.start("--store", "memory")
	w.login()
	w.eventually("status names it", func() bool {
		s := w.status().Sinks
		return len(s) == 2 && s[0].Error == dir+" can be written by others" && s[0].WrittenAt.IsZero()
	})
	for range 3 {
		w.must("", "bloq-agent", "refresh")
	}
	w.must("", "bloq-token")
	if r := w.must("", "bloq-agent", "status"); !strings.Contains(r.stdout, "sink "+path+": "+dir+" can be written by others") {
		t.Errorf("status hides it:\n%s", r.stdout)
	}
	if n := strings.Count(w.log.String(), "can be written by others"); n != 2 {
		t.Errorf("%d warnings for two sinks", n)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.daemon.Process.Signal(hup); err != nil {
		t.Fatal(err)
	}
	w.eventually("a reload mends it", w.holdsToken(path))
	w.eventually("status says so", func() bool { s := w.status().Sinks; return s[0].Error == "" && !s[0].WrittenAt.IsZero() })
	// Somebody removes it: a reload is enough.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_ = w.daemon.Process.Signal(hup)
	w.eventually("a reload brings it back", w.holdsToken(path))
}

// The daemon's real directories are refused, whatever they are called.
func TestASinkInTheDaemonsDirectories(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	socket := w.dir + "/elsewhere/agent.sock"
	w.configure("[[profile.default.sink]]\npath = \"%t/elsewhere/agent.sock.lock\"\n")
	w.env = append(w.env, "BLOQ_AGENT_SOCK="+socket)
	w.start("--store", "memory")
	w.login()
	w.eventually("status says so", func() bool {
		r := w.run("", "bloq-agent", "status")
		return strings.Contains(r.stdout, "elsewhere is a directory of bloq-agent itself")
	})
}

// A command runs after each write, without a secret in its environment or in
// the log, however much it tries.
func TestTheCommandOfASink(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	dir := w.sinkDir()
	script := dir + "/hook"
	runs, env := dir+"/runs", dir+"/env"
	text := "#!/bin/sh\nenv >" + env + "\nprintf '%s %s\\n' \"$1\" \"$(cat \"$BLOQ_SINK_PATH\")\" >>" + runs + "\ncat \"$BLOQ_SINK_PATH\"\nbase64 <\"$BLOQ_SINK_PATH\"\necho reloaded >&2\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	w.configure(fmt.Sprintf(tokenSink, "x") + fmt.Sprintf("command = [%q, \"$HOME; a b\"]\n", script))
	w.env = append(w.env, "BLOQ_CLIENT_SECRET=hunter2", "LANG=C.UTF-8")
	w.start("--store", "memory")
	w.login()
	w.eventually("the first run", func() bool { return strings.Count(content(runs), "\n") == 1 })
	for n := 2; n <= 4; n++ {
		w.must("", "bloq-agent", "refresh")
		w.eventually("one run more", func() bool { return strings.Count(content(runs), "\n") == n })
	}
	w.must("", "bloq-agent", "status")
	if got := strings.TrimSpace(content(runs)); !strings.HasSuffix(got, "\n$HOME; a b "+strings.TrimSpace(w.must("", "bloq-token").stdout)) {
		t.Errorf("the last run had another argument or token")
	}
	for _, line := range strings.Split(strings.TrimSpace(content(env)), "\n") {
		name, _, _ := strings.Cut(line, "=")
		switch name {
		case "PATH", "HOME", "USER", "LANG", "XDG_RUNTIME_DIR", "BLOQ_SINK_PATH", "BLOQ_PROFILE", "PWD", "_", "SHLVL", "OLDPWD": // the last four are sh's own
		default:
			t.Errorf("the command has %s", name)
		}
	}
	if got := content(env); !strings.Contains(got, "BLOQ_PROFILE=default\n") || !strings.Contains(got, "BLOQ_SINK_PATH="+dir+"/x\n") {
		t.Errorf("%s", got)
	}
	w.eventually("its output in the debug log", func() bool { return strings.Contains(w.log.String(), "reloaded") })
	w.stop()
	log := w.log.String()
	for secret, what := range w.secrets.all() {
		for _, part := range parts(secret) {
			if strings.Contains(log, part) {
				t.Errorf("the log holds the %s", what)
			}
		}
	}
}

// While a command runs, any number of writes ask for one more run.
func TestCommandsOfASinkDoNotOverlap(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	dir := w.sinkDir()
	fifo, runs := dir+"/fifo", dir+"/runs"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	w.configure(fmt.Sprintf(tokenSink, "x") +
		fmt.Sprintf("command = [\"sh\", \"-c\", \"echo begin >>%s; read x <%s; echo end >>%s\"]\n", runs, fifo, runs))
	w.start("--store", "memory")
	w.login()
	w.eventually("the first run", func() bool { return content(runs) == "begin\n" })
	for range 3 {
		w.must("", "bloq-agent", "refresh")
		w.eventually("the write", w.holdsToken(dir+"/x"))
	}
	for _, want := range []string{"begin\nend\nbegin\n", "begin\nend\nbegin\nend\n"} {
		if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil {
			t.Fatal(err)
		}
		w.eventually("the next run", func() bool { return content(runs) == want })
	}
	w.stop() // by then a third run would have begun
	if got := content(runs); got != "begin\nend\nbegin\nend\n" {
		t.Errorf("%q", got)
	}
}

// A command that fails is in status and costs nothing else; the end of the
// daemon is its end.
func TestACommandThatFails(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	dir := w.sinkDir()
	w.configure(fmt.Sprintf(tokenSink, "x") + "command = [\"sh\", \"-c\", \"exit 7\"]\n" +
		fmt.Sprintf(tokenSink, "y") + fmt.Sprintf("command = [\"sh\", \"-c\", \"echo $$ >%s/pid; exec sleep 60\"]\n", dir))
	w.start("--store", "memory")
	w.login()
	w.eventually("status says so", func() bool {
		s := w.status().Sinks
		return len(s) == 2 && s[0].Error == "command: exit status 7" && !s[0].WrittenAt.IsZero() && s[1].Error == ""
	})
	w.eventually("the other runs", func() bool { return strings.HasSuffix(content(dir+"/pid"), "\n") })
	begin := time.Now()
	w.stop()
	if d := time.Since(begin); d > 8*time.Second {
		t.Errorf("the daemon took %s to stop", d)
	}
	stat := content("/proc/" + strings.TrimSpace(content(dir+"/pid")) + "/stat")
	if stat != "" && !strings.Contains(stat, ") Z ") {
		t.Error("its command lives on")
	}
}

// Events tell when a sink begins to fail.
func TestWatchersHearOfSinks(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.configure(fmt.Sprintf(tokenSink, "x"))
	must(t, os.Chmod(w.sinkDir(), 0o777)) // others can write there
	w.start("--store", "memory")
	events := w.events()
	w.login()
	failed := func(e ipc.Event) bool {
		return e.Status != nil && len(e.Status.Sinks) == 1 && e.Status.Sinks[0].Error != ""
	}
	w.await(events, "the failure", failed)
	must(t, os.Chmod(w.sinkDir(), 0o700))
	_ = w.daemon.Process.Signal(hup)
	w.await(events, "the repair", func(e ipc.Event) bool { return e.Event == "status" && len(e.Status.Sinks) == 1 && !failed(e) })
	b, err := json.Marshal(w.status())
	if err != nil || !strings.Contains(string(b), `"sinks":[{"path":"`+w.dir+`/sinks/x","format":"token","written_at":"`) {
		t.Errorf("%s, %v", b, err)
	}
}
