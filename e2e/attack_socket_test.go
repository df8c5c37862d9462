package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

func init() {
	attacks["serve falsely"] = serveFalsely
	attacks["ask"] = askOnce
}

// serveFalsely listens where clients look for the daemon, and prints a line for
// each connection: how many bytes came by it.
func serveFalsely(args []string) {
	syscall.Umask(0)
	l, err := net.Listen("unix", args[0])
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		b, _ := io.ReadAll(c)
		fmt.Println(len(b))
		_ = c.Close()
	}
}

// askOnce asks for a token and prints what it gets.
func askOnce(args []string) {
	c, err := net.Dial("unix", args[0])
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "GET /v1/token HTTP/1.0\r\n\r\n")
	b, err := io.ReadAll(c)
	fmt.Printf("%d bytes, %v\n", len(b), err)
}

// Programs that are to talk to the daemon send nothing to another user's server
// in its place.
func TestAFalseServerHearsNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to be two users: sudo go test ./e2e")
	}
	w := newWorld(t, sandbox.Config{})
	w.asOrdinaryUser()
	must(t, os.Chmod(w.dir, 0o755))
	trap := filepath.Join(w.dir, "trap")
	must(t, os.Mkdir(trap, 0o777))
	must(t, os.Chmod(trap, 0o777))
	path := filepath.Join(trap, "agent.sock")
	w.env = append(w.env, "BLOQ_AGENT_SOCK="+path)
	falseServer := w.attacker(&syscall.Credential{Uid: otherUser, Gid: otherUser}, "serve falsely", path)
	out, err := falseServer.StdoutPipe()
	must(t, err)
	must(t, falseServer.Start())
	defer func() {
		_ = falseServer.Process.Kill()
		_ = falseServer.Wait()
	}()
	heard := bufio.NewScanner(out)
	if !heard.Scan() || heard.Text() != "ready" {
		t.Fatal(heard.Text())
	}
	for _, c := range []struct {
		stdin string
		args  []string
	}{
		{"", []string{"bloq-token"}},
		{"", []string{"bloq-token", "header"}},
		{w.pass + "\n", []string{"bloq-agent", "login", "--accounts-url", w.url, "--user", w.user, "--password-stdin"}},
		{foreignJWT, []string{"bloq-agent", "add", "--accounts-url", w.url, "--refresh-token-stdin"}},
		{"secret\n", []string{"bloq-agent", "add", "--accounts-url", w.url, "--client-id", "x", "--client-secret-stdin"}},
		{"", []string{"bloq-agent", "status"}},
		{"", []string{"bloq-agent", "lock"}},
	} {
		r := w.run(c.stdin, c.args[0], c.args[1:]...)
		if r.code != ipc.ExitNoDaemon || !strings.Contains(r.stderr, "belongs to another user; nothing was sent") {
			t.Errorf("%q: %+v", c.args, r)
		}
		if !heard.Scan() || heard.Text() != "0" {
			t.Errorf("%q: the false server heard %s bytes", c.args, heard.Text())
		}
	}
	if s := w.api.Load().Stats(); len(s.Grants) != 0 || s.Issued.Account != 0 {
		t.Errorf("Bloq was asked all the same: %+v", s)
	}
}

// Another user and root get nothing from the real daemon, with everything
// forced open, and do not fill its log.
func TestOthersGetNothingFromTheDaemon(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to be two users: sudo go test ./e2e")
	}
	w := newWorld(t, sandbox.Config{})
	w.asOrdinaryUser()
	w.start("--store", "memory")
	w.login()
	must(t, os.Chmod(w.dir, 0o755))
	must(t, os.Chmod(filepath.Dir(w.socket()), 0o755))
	must(t, os.Chmod(w.socket(), 0o666))
	for _, who := range []*syscall.Credential{nil, {Uid: otherUser, Gid: otherUser}} {
		for range 20 {
			out, err := w.attacker(who, "ask", w.socket()).Output()
			if err != nil || !strings.HasPrefix(string(out), "0 bytes") {
				t.Errorf("%+v gets %s (%v)", who, out, err)
			}
		}
	}
	if out, err := w.attacker(w.as, "ask", w.socket()).Output(); err != nil || strings.HasPrefix(string(out), "0 bytes") {
		t.Errorf("its own user gets %s (%v)", out, err)
	}
	if n := strings.Count(w.log.String(), "refused a peer"); n != 1 {
		t.Errorf("40 refusals made %d lines", n)
	}
	if r := w.must("", "bloq-agent", "status", "--callers"); !strings.Contains(r.stdout, "40 connections of other users were refused") {
		t.Errorf("%s", r.stdout)
	}
}

// What others may have put where the socket goes is refused, or mended, and
// never followed.
func TestWhatLiesInTheSocketsPlace(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(t *testing.T, dir string) // dir is that of the socket
		says    string                         // "" if it runs
	}{
		"directory open to all": {func(t *testing.T, dir string) { must(t, os.Mkdir(dir, 0o777)); must(t, os.Chmod(dir, 0o777)) }, "can be written by others"},
		"directory of others that is closed": {func(t *testing.T, dir string) {
			needRoot(t)
			must(t, os.Mkdir(dir, 0o755))
			must(t, os.Chown(dir, otherUser, otherUser))
		}, "belongs to another user"},
		"parent of others": {func(t *testing.T, dir string) {
			needRoot(t)
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.Chown(dir, ordinaryUser, ordinaryUser))
			must(t, os.Chown(filepath.Dir(dir), otherUser, otherUser))
			must(t, os.Chmod(filepath.Dir(dir), 0o755))
		}, "belongs to another user"},
		"directory readable by all": {func(t *testing.T, dir string) { must(t, os.Mkdir(dir, 0o755)) }, ""},
		"directory is a link":       {func(t *testing.T, dir string) { link(t, dir) }, "is not a directory"},
		"directory is a dangling link": {func(t *testing.T, dir string) {
			must(t, os.Symlink(filepath.Join(filepath.Dir(dir), "nowhere"), dir))
		}, "exists"},
		"directory is a FIFO": {func(t *testing.T, dir string) { must(t, syscall.Mkfifo(dir, 0o600)) }, "not a directory"},
		"socket is a FIFO": {func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, syscall.Mkfifo(dir+"/agent.sock", 0o600))
		}, "no socket"},
		"socket is a link": {func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			link(t, dir+"/agent.sock")
		}, "no socket"},
		"socket is a dangling link": {func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.Symlink(filepath.Join(filepath.Dir(dir), "nowhere"), dir+"/agent.sock"))
		}, "no socket"},
		"lock is a dangling link": {func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir, 0o700))
			must(t, os.Symlink(filepath.Join(filepath.Dir(dir), "nowhere"), dir+"/agent.sock.lock"))
		}, "too many levels of symbolic links"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Config{})
			w.asOrdinaryUser()
			dir := filepath.Dir(w.socket())
			tt.prepare(t, dir)
			if w.as != nil && !strings.Contains(name, "others") {
				must(t, exec.Command("chown", "-hR", fmt.Sprint(ordinaryUser), w.dir).Run())
			}
			if tt.says == "" {
				w.start("--store", "memory")
				w.must("", "bloq-agent", "status")
				return
			}
			r := w.run("", "bloq-agent", "serve", "--store", "memory")
			if r.code == 0 || !strings.Contains(r.stderr, tt.says) {
				t.Errorf("%+v", r)
			}
			if _, err := os.Lstat(filepath.Join(w.dir, "nowhere")); err == nil {
				t.Error("a dangling link was followed")
			}
			if list, err := os.ReadDir(filepath.Join(w.dir, "target")); err == nil && len(list) > 0 {
				t.Errorf("a link was followed: %v", list)
			}
		})
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to give files away: sudo go test ./e2e")
	}
}

// link makes path a link to a directory beside that of the socket.
func link(t *testing.T, path string) {
	t.Helper()
	dir := path
	for filepath.Base(dir) != "bloq-agent" {
		dir = filepath.Dir(dir)
	}
	target := filepath.Join(filepath.Dir(dir), "target")
	must(t, os.Mkdir(target, 0o700))
	must(t, os.Symlink(target, path))
}

// Under a umask that closes nothing, what the daemon makes is closed.
func TestAnyUmask(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.asOrdinaryUser()
	w.through("umask 000")
	w.start("--store", "file")
	w.login()
	w.must("", "bloq-agent", "refresh")
	n := 0
	for _, dir := range []string{w.dir + "/bloq-agent", w.dir + "/state/bloq-agent", w.dir + "/.local/share/bloq-agent"} {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			n++
			fi, err := d.Info()
			if err == nil && fi.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v", path, fi.Mode())
			}
			return err
		})
		must(t, err)
	}
	if n < 8 {
		t.Errorf("only %d files and directories", n)
	}
}

// Without HOME and XDG_RUNTIME_DIR the daemon starts where the system says, or
// says what is missing; it makes nothing where it happens to stand.
func TestWithoutHomeOrRuntimeDirectory(t *testing.T) {
	without := func(w *world, names ...string) {
		var env []string
		for _, kv := range w.env {
			keep := true
			for _, n := range names {
				keep = keep && !strings.HasPrefix(kv, n+"=")
			}
			if keep {
				env = append(env, kv)
			}
		}
		w.env = env
	}
	w := newWorld(t, sandbox.Config{})
	w.asOrdinaryUser()
	without(w, "HOME")
	w.env = append(w.env, "XDG_DATA_HOME="+w.dir+"/data")
	w.start("--store", "memory")
	w.login()
	w.must("", "bloq-token")
	w.stop()

	w = newWorld(t, sandbox.Config{})
	w.asOrdinaryUser()
	without(w, "XDG_RUNTIME_DIR")
	// The process stands in its home, which may hold nothing afterwards.
	uid := os.Getuid()
	if w.as != nil {
		uid = int(w.as.Uid)
	}
	usual := fmt.Sprintf("/run/user/%d", uid)
	if _, err := os.Stat(usual); err == nil {
		t.Skipf("there is %s, which is not ours to use", usual)
	}
	r := w.run("", "bloq-agent", "serve", "--store", "memory")
	if r.code == 0 || !strings.Contains(r.stderr, "/run/user") {
		t.Errorf("%+v", r)
	}
	if uid != 0 && !strings.Contains(r.stderr, "hint: export BLOQ_AGENT_SOCK=") {
		t.Errorf("no hint: %s", r.stderr)
	}
	if _, err := os.Lstat(filepath.Join(w.dir, "bloq-agent")); err == nil {
		t.Error("it made a directory where it stood")
	}
	if r := w.run("", "bloq-token"); r.code != ipc.ExitNoDaemon {
		t.Errorf("%+v", r)
	}
}

func TestTheLongestPathOfASocket(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.asOrdinaryUser()
	dir := filepath.Join(w.dir, "s")
	longest := dir + "/" + strings.Repeat("x", ipc.MaxPath-len(dir)-1)
	r := w.run("", "bloq-agent", "serve", "--socket", longest+"x")
	if r.code != ipc.ExitUsage || !strings.Contains(r.stderr, "longer than 107 bytes") {
		t.Errorf("108 bytes: %+v", r)
	}
	for _, program := range []string{"bloq-token", "bloq-agent"} {
		args := []string{"--socket", longest + "x"}
		if program == "bloq-agent" {
			args = append(args, "status")
		}
		if r := w.run("", program, args...); r.code != ipc.ExitUsage || !strings.Contains(r.stderr, "longer than 107 bytes") {
			t.Errorf("%s, 108 bytes: %+v", program, r)
		}
	}
	if len(longest) != 107 {
		t.Fatal(len(longest))
	}
	w.start("--store", "memory", "--socket", longest)
	w.must("", "bloq-agent", "status", "--socket", longest)
	if r := w.run("", "bloq-token", "--socket", longest); r.code != ipc.ExitPerson {
		t.Errorf("107 bytes: %+v", r)
	}
}
