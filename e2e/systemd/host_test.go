// Package systemd installs the package on a machine of its own and runs the
// units there: a real systemd, real user managers, ordinary users. It needs root
// and a minute, so `make e2e` runs it and `go test ./...` does not.
package systemd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv("BLOQ_E2E_INSIDE"); mode != "" {
		os.Exit(inside(mode))
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "e2e-systemd-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		scratch = dir
		return m.Run()
	}())
}

var scratch string // a directory of the whole run

// commandTimeout bounds everything that is run in a host.
const commandTimeout = 90 * time.Second

// A host is a machine with systemd as PID 1.
type host struct {
	t   *testing.T
	pid string // of its PID 1
}

// boot starts a host, which ends with the test, and waits for the managers of
// those who linger.
func boot(t *testing.T) *host {
	t.Helper()
	if os.Getenv("BLOQ_E2E") == "" {
		t.Skip("boots a systemd, which takes root: make e2e")
	}
	dir, err := os.MkdirTemp(scratch, "host-")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	cmd := exec.Command("sh", "host.sh", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	alive, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = alive.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the host did not boot: %v", err)
	}
	h := &host{t: t, pid: strings.TrimSpace(line)}
	h.eventually(30*time.Second, "the users' managers", func() bool {
		for _, user := range []string{"alice", "bob"} {
			if r := h.run("root", "", "systemctl", "is-active", "user@"+h.uid(user)+".service"); r.out != "active\n" {
				return false
			}
		}
		return true
	})
	t.Logf("booted in %v", time.Since(start).Round(10*time.Millisecond))
	return h
}

// path is where a file of the host is for us.
func (h *host) path(name string) string { return "/proc/" + h.pid + "/root" + name }

// write writes a file as its user would, so that directories on the way are the
// user's.
func (h *host) write(user, name, content string) {
	h.t.Helper()
	h.mustRead(user, content, "sh", "-c", `mkdir -p "${1%/*}" && cat >"$1"`, "sh", name)
}

// copyIn copies a file of ours into the host.
func (h *host) copyIn(from, to string, mode os.FileMode) {
	h.t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(h.path(to), b, mode)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// exists follows no link out of the host's root.
func (h *host) exists(name string) bool {
	_, err := os.Lstat(h.path(name))
	return err == nil
}

// uid is the user's number, or "" while there is no such user.
func (h *host) uid(user string) string {
	b, _ := os.ReadFile(h.path("/etc/passwd")) // not there: no user
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); f[0] == user {
			return f[2]
		}
	}
	return ""
}

// command is one that user will run, with what a session would set, but for
// D-Bus: whoever needs a bus finds it in the runtime directory.
func (h *host) command(ctx context.Context, user string, args ...string) *exec.Cmd {
	enter := []string{"-t", h.pid, "-a", "--"}
	env := []string{"env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C.UTF-8", "USER=" + user, "LOGNAME=" + user}
	if user == "root" {
		env = append(env, "HOME=/root")
	} else {
		enter = append(enter, "setpriv", "--reuid", user, "--regid", user, "--init-groups", "--inh-caps=-all")
		env = append(env, "HOME=/home/"+user)
		if dir := "/run/user/" + h.uid(user); h.exists(dir) {
			env = append(env, "XDG_RUNTIME_DIR="+dir)
		}
	}
	return exec.CommandContext(ctx, "nsenter", append(append(enter, env...), args...)...)
}

// A result is what a command did.
type result struct {
	code     int
	out, err string
}

func (h *host) run(user, stdin string, args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := h.command(ctx, user, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		h.t.Fatalf("%q: %v\n%s", args, err, errs.String())
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// must runs a command that has to succeed, and returns its output.
func (h *host) must(user string, args ...string) string {
	h.t.Helper()
	return h.mustRead(user, "", args...)
}

func (h *host) mustRead(user, stdin string, args ...string) string {
	h.t.Helper()
	r := h.run(user, stdin, args...)
	if r.code != 0 {
		h.t.Fatalf("%s: %q: exit %d\n%s%s\njournal:\n%s", user, args, r.code, r.out, r.err, h.journal())
	}
	return r.out
}

// journal is the end of what the host has to say.
func (h *host) journal() string {
	return h.run("root", "", "journalctl", "--no-pager", "-n", "60", "-o", "short-monotonic").out
}

// A unit is a service of a manager, and its socket.
type unit struct {
	h    *host
	user string // whose it is, and whose agent it is
	name string
	args []string // of systemctl
	as   string   // who may manage it
}

// userUnit is the unit of a user's own manager.
func (h *host) userUnit(user string) unit {
	return unit{h, user, "bloq-agent", []string{"systemctl", "--user"}, user}
}

// systemUnit is the instance of the system's manager.
func (h *host) systemUnit(user string) unit {
	return unit{h, user, "bloq-agent@" + user, []string{"systemctl"}, "root"}
}

func (u unit) systemctl(args ...string) string {
	u.h.t.Helper()
	return u.h.must(u.as, append(append([]string{}, u.args...), args...)...)
}

// show is a property of the service or the socket, as kind says.
func (u unit) show(kind, property string) string {
	u.h.t.Helper()
	return strings.TrimSpace(u.systemctl("show", "--value", "-p", property, u.name+"."+kind))
}

func (u unit) restarts() int {
	u.h.t.Helper()
	n, err := strconv.Atoi(u.show("service", "NRestarts"))
	if err != nil {
		u.h.t.Fatal(err)
	}
	return n
}

// kill kills the daemon at once, when there is one.
func (u unit) kill() {
	u.h.t.Helper()
	u.h.eventually(10*time.Second, "a daemon to kill", func() bool { return u.show("service", "MainPID") != "0" })
	u.systemctl("kill", "-s", "KILL", u.name+".service")
}

// dropIn writes a drop-in of the service; an empty text removes it.
func (u unit) dropIn(name, text string) {
	u.h.t.Helper()
	path := "/etc/systemd/system/" + u.name + ".service.d/" + name + ".conf"
	if u.as != "root" {
		path = "/home/" + u.user + "/.config/systemd/user/" + u.name + ".service.d/" + name + ".conf"
	}
	if text == "" {
		if err := os.Remove(u.h.path(path)); err != nil {
			u.h.t.Fatal(err)
		}
	} else {
		u.h.write(u.as, path, text)
	}
	u.systemctl("daemon-reload")
}

// log is what the agent has said to the journal.
func (u unit) log() string {
	u.h.t.Helper()
	if u.as == "root" {
		return u.h.must("root", "journalctl", "--no-pager", "-o", "cat", "-u", u.name+".service")
	}
	// As the user sees it; the lines of journalctl's own go to stderr.
	return u.h.must(u.user, "journalctl", "--no-pager", "-o", "cat", "--user", "-u", u.name+".service")
}

func (u unit) token() result {
	u.h.t.Helper()
	return u.h.run(u.user, "", "bloq-token")
}

// mustToken is a token of the agent.
func (u unit) mustToken() string {
	u.h.t.Helper()
	r := u.token()
	if r.code != 0 || strings.Count(r.out, ".") != 2 {
		u.h.t.Fatalf("bloq-token of %s: %+v\n%s", u.user, r, u.h.journal())
	}
	return strings.TrimSpace(r.out)
}

// login logs in at the sandbox.
func (u unit) login(store string) {
	u.h.t.Helper()
	u.h.mustRead(u.user, sandboxPassword+"\n", "bloq-agent", "login", "--accounts-url", sandboxURL, "--user", sandboxUser,
		"--password-stdin", "--store", store)
}

func (h *host) eventually(limit time.Duration, what string, f func() bool) {
	h.t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("not in %v: %s\n%s", limit, what, h.journal())
		}
	}
}

const (
	sandboxURL      = "http://127.0.0.1:4000"
	sandboxUser     = "e2e@bloq.example"
	sandboxPassword = "correct horse battery staple"
)

// startSandbox is Bloq, as a service of the host.
func (h *host) startSandbox() {
	h.t.Helper()
	h.must("root", "systemd-run", "--quiet", "--unit=sandbox", "bloq-sandbox", "serve", "--listen", "127.0.0.1:4000",
		"--user", sandboxUser, "--password", sandboxPassword, "--state", "/var/tmp/sandbox.json")
	h.eventually(10*time.Second, "the sandbox listens", func() bool {
		return strings.Contains(h.run("root", "", "journalctl", "--no-pager", "-u", "sandbox", "-o", "cat").out, "accounts_url")
	})
}

// build makes a package of a version, once, and returns its .deb and .rpm.
func build(t *testing.T, version string) (deb, rpm string) {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	dir := filepath.Join(scratch, version)
	if _, err := os.Stat(dir); err != nil {
		make := exec.Command("make", "-s", "-C", "../..", "packages", "DIST="+dir, "VERSION="+version, "PACKAGE_VERSION="+version)
		if out, err := make.CombinedOutput(); err != nil {
			t.Fatalf("make packages: %v\n%s", err, out)
		}
	}
	debs, _ := filepath.Glob(dir + "/*.deb") // the pattern is right
	rpms, _ := filepath.Glob(dir + "/*.rpm")
	if len(debs) != 1 || len(rpms) != 1 {
		t.Fatalf("packages: %q, %q", debs, rpms)
	}
	return debs[0], rpms[0]
}

var builds sync.Mutex

// install installs the package of a version, over another if there is one.
func (h *host) install(version string) {
	h.t.Helper()
	deb, _ := build(h.t, version)
	h.copyIn(deb, "/var/tmp/package.deb", 0o644)
	h.must("root", "dpkg", "-i", "/var/tmp/package.deb")
}

// ready is a host with the package, a sandbox, and our own tool.
func ready(t *testing.T) *host {
	h := boot(t)
	h.install("1.0.0")
	h.startSandbox()
	h.copyIn(os.Args[0], "/usr/local/bin/inside", 0o755)
	return h
}

// serving is the unit of alice with a login in the file store.
func (h *host) serving() unit {
	h.t.Helper()
	u := h.userUnit("alice")
	u.systemctl("enable", "--now", "bloq-agent.socket")
	u.login("file")
	u.mustToken()
	return u
}

// A load is clients that ask all the time.
type load struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   bytes.Buffer
}

// loadOf starts 8 clients of the unit's user.
func (u unit) loadOf() *load {
	u.h.t.Helper()
	l := &load{cmd: u.h.command(context.Background(), u.user, "env", "BLOQ_E2E_INSIDE=load", "inside")}
	var err error
	if l.stdin, err = l.cmd.StdinPipe(); err != nil {
		u.h.t.Fatal(err)
	}
	l.cmd.Stdout, l.cmd.Stderr = &l.out, &l.out
	if err := l.cmd.Start(); err != nil {
		u.h.t.Fatal(err)
	}
	return l
}

// end stops the clients and wants none of them to have failed.
func (u unit) end(l *load, what string) {
	u.h.t.Helper()
	_ = l.stdin.Close()
	err := l.cmd.Wait()
	var runs, failed int
	var worst time.Duration
	var texts string
	first, rest, _ := strings.Cut(l.out.String(), "\n")
	if _, scanErr := fmt.Sscanf(first, "%d %d %d", &runs, &failed, &worst); scanErr != nil || err != nil {
		u.h.t.Fatalf("the load broke: %v, %v\n%s", err, scanErr, l.out.String())
	}
	texts = rest
	u.h.t.Logf("%s: %d helpers, %d failed, the slowest took %v", what, runs, failed, worst.Round(time.Millisecond))
	if failed > 0 || runs < 20 {
		u.h.t.Errorf("%d of %d helpers failed:\n%s\n%s", failed, runs, texts, u.h.journal())
	}
}
