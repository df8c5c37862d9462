// Package e2e runs the real programs against each other: sandbox, daemon,
// commands and helper as processes, with real sockets and real files.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

// bin is where TestMain puts the programs as they ship.
var bin string

func TestMain(m *testing.M) {
	if part := os.Getenv(attack); part != "" {
		attacks[part](os.Args[1:])
		os.Exit(0)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "bloq-bin-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		bin = dir
		if err := os.Chmod(dir, 0o755); err != nil { // programs may run as another user
			panic(err)
		}
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/", "../cmd/...")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			panic(string(out))
		}
		for _, name := range links {
			if err := os.Symlink("bloq-token", filepath.Join(dir, name)); err != nil {
				panic(err)
			}
		}
		code := m.Run()
		fmt.Printf("searched %d worlds for %d secrets in %d places\n", searched.worlds.Load(), searched.secrets.Load(), searched.places.Load())
		return code
	}())
}

var readOnce sync.Once

// readSources opens every source of the programs, so that go test knows of them:
// it cannot see what TestMain's go build reads, and would repeat an old result
// after a change. It counts only what is opened while a test runs.
func readSources(t *testing.T) {
	t.Helper()
	readOnce.Do(func() {
		err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
			name := d.Name()
			switch {
			case err != nil:
				return err
			case d.IsDir() && (name == "e2e" || name == "bin" || name == "testdata" || len(name) > 2 && name[0] == '.'):
				return fs.SkipDir
			case d.IsDir() || strings.HasSuffix(name, "_test.go") || !strings.HasSuffix(name, ".go") && name != "go.mod" && name != "go.sum":
				return nil
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			return f.Close()
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// links are the names of the helper that tools look for.
var links = []string{
	"git-credential-bloq", "docker-credential-bloq", "terraform-credentials-bloq", "cargo-credential-bloq", "bloq-token-bazel", "bloq-token-pnpm",
}

// A world is one machine of one user: directories, a sandbox in this process,
// and what was started in it.
type world struct {
	t    *testing.T
	dir  string
	env  []string
	url  string
	user string
	pass string

	api     atomic.Pointer[sandbox.Server]
	config  sandbox.Config
	secrets *recorder

	mu      sync.Mutex          // guards started and said
	started [][]string          // argv of every process
	said    []byte              // what people saw of programs that print no secret
	holds   []string            // files and directories where the test itself puts secrets
	as      *syscall.Credential // who the programs run as; nil: ourselves
	before  string              // what a shell does before the daemon starts; may be ""

	daemon *exec.Cmd
	log    lockedBuffer // the daemon's, over restarts
	told   lockedBuffer // what it told systemd, over restarts
}

// newWorld makes a world with a sandbox of config. Everything ends with the
// test.
func newWorld(t *testing.T, config sandbox.Config) *world {
	t.Helper()
	readSources(t)
	dir, err := os.MkdirTemp("", "bloq-e2e-") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, config: config, secrets: &recorder{seen: map[string]string{}}}
	t.Cleanup(func() {
		w.search() // everything has ended by now
		_ = os.RemoveAll(dir)
	})
	w.config.StateFile = filepath.Join(t.TempDir(), "sandbox.json")
	w.setSandbox(func(*sandbox.Config) {})
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.secrets.serve(w.api.Load(), rw, r)
	}))
	t.Cleanup(func() {
		w.api.Load().Close()
		srv.Close()
	})
	w.url, w.user, w.pass = srv.URL, w.api.Load().Email(), w.api.Load().Password()
	w.secrets.add("password", w.pass)
	if err := os.Mkdir(dir+"/tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	w.env = []string{
		"HOME=" + dir, "PATH=" + bin + ":" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=" + dir,
		"XDG_CONFIG_HOME=" + dir + "/config", "XDG_STATE_HOME=" + dir + "/state", "TMPDIR=" + dir + "/tmp",
	}
	return w
}

// asOrdinaryUser makes the programs those of an ordinary user: root passes through
// everything. Without root we are one. Nothing has been started yet.
func (w *world) asOrdinaryUser() {
	w.t.Helper()
	if os.Getuid() != 0 {
		return
	}
	w.as = &syscall.Credential{Uid: ordinaryUser, Gid: ordinaryUser}
	for _, dir := range []string{w.dir, filepath.Join(w.dir, "state"), filepath.Join(w.dir, "config"), filepath.Join(w.dir, "tmp")} {
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chown(dir, ordinaryUser, ordinaryUser)); err != nil {
			w.t.Fatal(err)
		}
	}
}

const (
	ordinaryUser = 65534
	otherUser    = 65533
)

// setSandbox replaces the sandbox by one with other settings and the same
// users, keys and tokens.
func (w *world) setSandbox(change func(*sandbox.Config)) {
	w.t.Helper()
	change(&w.config)
	api, err := sandbox.New(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	if old := w.api.Swap(api); old != nil {
		old.Close()
	}
}

// uid is whom the programs run as.
func (w *world) uid() int {
	if w.as != nil {
		return int(w.as.Uid)
	}
	return os.Getuid()
}

func (w *world) socket() string { return w.dir + "/bloq-agent/agent.sock" }

func (w *world) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, name), args...)
	cmd.Env = w.env
	cmd.Dir = w.dir
	if w.as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: w.as}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.started = append(w.started, cmd.Args)
	return cmd
}

// A result is what a program did.
type result struct {
	code           int
	stdout, stderr string
}

// run runs a program to its end. No program here may take longer than 30 s.
func (w *world) run(stdin, name string, args ...string) result {
	w.t.Helper()
	cmd := w.command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	r := w.finish(cmd)
	if !printsSecrets(name, args) {
		w.mu.Lock()
		w.said = append(append(w.said, r.stdout...), r.stderr...)
		w.mu.Unlock()
	}
	return r
}

// finish runs cmd to its end.
func (w *world) finish(cmd *exec.Cmd) result {
	w.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second // for a child of a child that keeps a pipe open
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	guard := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer guard.Stop()
	err := cmd.Wait()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		w.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// must runs a program that has to succeed.
func (w *world) must(stdin, name string, args ...string) result {
	w.t.Helper()
	r := w.run(stdin, name, args...)
	if r.code != 0 {
		w.t.Fatalf("%s %q: exit %d\n%s%s\ndaemon: %s", name, args, r.code, r.stdout, r.stderr, w.log.String())
	}
	return r
}

// sh runs a script in the world's home.
func (w *world) sh(script string) result {
	w.t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Env, cmd.Dir = w.env, w.dir
	return w.finish(cmd)
}

// mustSh is sh for a script that has to succeed.
func (w *world) mustSh(script string) string {
	w.t.Helper()
	r := w.sh(script)
	if r.code != 0 {
		w.t.Fatalf("%s: exit %d\n%s%s\ndaemon: %s", script, r.code, r.stdout, r.stderr, w.log.String())
	}
	return r.stdout
}

// start starts the daemon and returns when it says that it is ready.
func (w *world) start(args ...string) {
	w.t.Helper()
	path := filepath.Join(w.dir, "notify")
	_ = os.Remove(path)
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chown(path, w.uid(), -1); err != nil {
		w.t.Fatal(err)
	}
	w.daemon = w.command("bloq-agent", append([]string{"serve", "--log-level", "debug", "--log-format", "json"}, args...)...)
	if w.before != "" {
		w.daemon.Args = append([]string{"sh", "-c", w.before + ` && exec "$0" "$@"`}, w.daemon.Args...)
		w.daemon.Path = "/bin/sh"
	}
	w.daemon.Env = append(w.daemon.Env, "NOTIFY_SOCKET="+path)
	w.daemon.Stderr = &w.log
	if err := w.daemon.Start(); err != nil {
		w.t.Fatal(err)
	}
	daemon := w.daemon
	w.t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
		_ = ready.Close()
	})
	_ = ready.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 4096)
	for {
		n, err := ready.Read(buf)
		if err != nil {
			w.t.Fatalf("the daemon did not get ready: %v\n%s", err, w.log.String())
		}
		_, _ = w.told.Write(append(buf[:n:n], '\n'))
		if strings.HasPrefix(string(buf[:n]), "READY=1") {
			break
		}
	}
	_ = ready.SetReadDeadline(time.Time{})
	go func() { // as systemd would; ends when the test closes the socket
		for {
			n, err := ready.Read(buf)
			if err != nil {
				return
			}
			_, _ = w.told.Write(append(buf[:n:n], '\n'))
		}
	}()
}

// stop ends the daemon as systemd would, and wants it to end well.
func (w *world) stop() {
	w.t.Helper()
	if err := w.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Fatal(err)
	}
	if err := w.daemon.Wait(); err != nil {
		w.t.Fatalf("the daemon ended badly: %v\n%s", err, w.log.String())
	}
}

// through has the daemon started by a shell that does something before.
func (w *world) through(command string) { w.before = command }

func (w *world) login(args ...string) {
	w.t.Helper()
	w.must(w.pass+"\n", "bloq-agent", append([]string{"login", "--accounts-url", w.url, "--user", w.user, "--password-stdin"}, args...)...)
}

// client speaks HTTP to the daemon, as curl --unix-socket would.
func (w *world) client() *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", w.socket())
		},
		DisableKeepAlives: true,
	}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// events follows the daemon's events until the test ends.
func (w *world) events() <-chan ipc.Event {
	w.t.Helper()
	answer, err := (&http.Client{Transport: w.client().Transport}).Get("http://bloq-agent" + ipc.RouteEvents)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = answer.Body.Close() })
	events := make(chan ipc.Event, 100)
	go func() { // ends with the stream
		defer close(events)
		buf := newLines(answer.Body)
		for buf.Scan() {
			var e ipc.Event
			if data, ok := strings.CutPrefix(buf.Text(), "data: "); ok && json.Unmarshal([]byte(data), &e) == nil {
				events <- e
			}
		}
	}()
	return events
}

// await is the next event that f wants.
func (w *world) await(events <-chan ipc.Event, what string, f func(ipc.Event) bool) ipc.Event {
	w.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				w.t.Fatalf("the events ended before: %s", what)
			}
			if f(e) {
				return e
			}
		case <-deadline:
			w.t.Fatalf("did not happen in 30 s: %s\n%s", what, w.log.String())
		}
	}
}

// A lockedBuffer is written by one goroutine and read by another.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// contains reports whether what was written after the first from bytes holds s.
func (l *lockedBuffer) contains(from int, s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.b.Bytes()[from:], []byte(s))
}

// logged waits for something in the daemon's log, which has no event of its own.
func (w *world) logged(text string) {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !w.log.contains(0, text) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not logged in 20 s: %s\n%s", text, w.log.String())
		}
		time.Sleep(5 * time.Millisecond)
	}
}
