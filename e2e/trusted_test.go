package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
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

// A configuration that another user could have written is not taken, and its
// sink's command not run. What the helper and config check say is true, and the
// command that they name is all it takes.
func TestAConfigurationThatOthersCouldHaveWritten(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to give files away: sudo go test ./e2e")
	}
	for name, tt := range map[string]struct {
		spoil      func(config string) error
		text, hint string // FILE and DIR stand for paths
	}{
		"others may write it": {func(c string) error { return os.Chmod(c, 0o606) }, "FILE can be written by others", "chmod o-w FILE"},
		"its group may write it": {func(c string) error {
			return errors.Join(os.Chown(c, -1, otherUser), os.Chmod(c, 0o660))
		}, "FILE can be written by its group", "chmod g-w FILE"},
		"another user's": {func(c string) error {
			return errors.Join(os.Chown(c, otherUser, -1), os.Chmod(c, 0o644))
		}, "FILE belongs to another user, 65533", "sudo chown nobody FILE"},
		"closed to us": {func(c string) error { return os.Chown(c, 0, 0) }, "FILE cannot be read: permission denied", "sudo chown nobody FILE"},
		"others may write in its directory": {func(c string) error {
			return os.Chmod(filepath.Dir(c), 0o777)
		}, "FILE: DIR can be written by others", "chmod go-w DIR"},
		"others may write above": {func(c string) error {
			return os.Chmod(filepath.Dir(filepath.Dir(c)), 0o777)
		}, "FILE: " + "DIR/.. can be written by others", "chmod go-w DIR/.."},
		"a link through a directory of another user": {func(c string) error {
			dir := filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(c))), "elsewhere")
			return errors.Join(os.Mkdir(dir, 0o755), os.Rename(c, dir+"/c"), os.Symlink(dir+"/c", c), os.Chown(dir, otherUser, -1))
		}, "FILE: DIR/../../elsewhere belongs to another user, 65533", "sudo chown nobody DIR/../../elsewhere"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Config{})
			w.asOrdinaryUser()
			must(t, os.Chown(w.sinkDir(), ordinaryUser, ordinaryUser))
			w.start("--store", "file")
			w.login()
			w.stop()
			ran := w.dir + "/sinks/ran"
			w.configure(fmt.Sprintf(tokenSink, "x") + fmt.Sprintf("command = [\"/bin/sh\", \"-c\", \"echo >>%s\"]\n", ran))
			config := filepath.Join(w.dir, "config", "bloq-agent", "config.toml")
			must(t, tt.spoil(config))
			full := strings.NewReplacer("FILE", config, "DIR/../..", w.dir, "DIR/..", filepath.Dir(filepath.Dir(config)), "DIR", filepath.Dir(config))
			text, hint := full.Replace(tt.text), full.Replace(tt.hint)

			w.start("--store", "file")
			r := w.run("", "bloq-token")
			w.wants(r, 5, text, "hint: "+hint+"\n")
			w.wants(w.run("", "bloq-agent", "config", "check"), 5, text, "hint: "+hint+"\n")
			if r := w.run("", "bloq-agent", "status"); !strings.Contains(r.stderr, text) {
				t.Errorf("status: %+v", r)
			}
			if content(ran) != "" {
				t.Error("the command was run")
			}
			w.types(hint)
			w.must("", "bloq-agent", "config", "check")
			w.eventually("the configuration is taken", func() bool { return w.run("", "bloq-token").code == 0 })
			w.stop() // its directory is open to those alone that find it in the configuration at their start
			w.start("--store", "file")
			w.eventually("the command is run", func() bool { return content(ran) != "" })
			w.stop()
		})
	}
}

// A configuration that came by a pipe was once taken for none.
func TestAConfigurationWithoutANameIsRefused(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	check := func(path, text string) {
		w.wants(w.run("nonsense = [", "bloq-agent", "config", "check", "--config", path), 5, path+text, "")
	}
	check("/dev/stdin", " is a pipe; name a regular file")
	check("/dev/null", " is not a regular file")
}

// types runs a hint as a person would, who may use sudo.
func (w *world) types(hint string) {
	w.t.Helper()
	if out, err := exec.Command("sh", "-c", strings.ReplaceAll(hint, "sudo ", "")).CombinedOutput(); err != nil {
		w.t.Fatalf("%s: %v: %s", hint, err, out)
	}
}

// What is in force stays while a new configuration is refused, and a directory
// that is mended is noticed although nobody watches it.
func TestARefusedConfigurationKeepsTheOneBefore(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.configure("log_level = \"debug\"\n")
	w.start("--store", "memory")
	w.login()
	above := filepath.Join(w.dir, "config")
	must(t, os.Chmod(above, 0o777))
	must(t, w.daemon.Process.Signal(hup))
	w.logged("keeping the one before")
	w.must("", "bloq-token")
	var s ipc.Status
	must(t, json.Unmarshal([]byte(w.must("", "bloq-agent", "status", "--json").stdout), &s))
	if !strings.Contains(s.Config.Error, "(chmod o-w "+above+")") {
		t.Errorf("status says %q", s.Config.Error)
	}
	events := w.events()
	w.types("chmod o-w " + above)
	w.await(events, "the configuration is read again", isReload)
	w.stop()
}

// Nobody writes into these FIFOs. The daemon answers, reloads and ends all the
// same.
func TestAFIFOHangsNothing(t *testing.T) {
	for name, tt := range map[string]func(w *world, config, pem string){
		"config.toml": func(w *world, config, _ string) {
			must(w.t, os.Remove(config))
			must(w.t, syscall.Mkfifo(config, 0o600))
		},
		"tls_ca_file": func(w *world, config, pem string) {
			_ = os.Remove(pem)
			must(w.t, syscall.Mkfifo(pem, 0o600))
			w.configure(fmt.Sprintf("tls_ca_file = %q\n", pem))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Config{})
			config, pem := filepath.Join(w.dir, "config", "bloq-agent", "config.toml"), filepath.Join(w.dir, "ca.pem")
			w.configure("log_level = \"debug\"\n")
			w.start("--store", "memory")
			w.login()
			tt(w, config, pem)
			must(t, w.daemon.Process.Signal(hup))
			w.logged("is not a regular file")
			w.must("", "bloq-token")
			w.wants(w.run("", "bloq-agent", "config", "check"), 5, "is not a regular file", "")

			events := w.events()
			must(t, os.Remove(config))
			w.configure("log_level = \"debug\"\n")
			must(t, w.daemon.Process.Signal(hup))
			w.await(events, "a reload", isReload)

			tt(w, config, pem)
			must(t, w.daemon.Process.Signal(hup))
			must(t, w.daemon.Process.Signal(syscall.SIGTERM))
			ended := make(chan error, 1)
			go func() { ended <- w.daemon.Wait() }()
			select {
			case err := <-ended:
				must(t, err)
			case <-time.After(20 * time.Second):
				t.Fatal("SIGTERM does not end it")
			}

			w.start("--store", "memory")
			w.wants(w.run("", "bloq-token"), 5, "is not a regular file", "bloq-agent config check")
			w.stop()
		})
	}
}

// Whatever else of ours is read goes by the same rule, because nothing opens a
// file by itself.
func TestEveryFileIsOpenedByTheOneRule(t *testing.T) {
	allowed := map[string]string{
		"accounts/loopback/proc_linux.go": "/proc",
		"daemon/callers/proc.go":          "/proc",
		"daemon/harden/harden_linux.go":   "/proc",
		"store/disk.go":                   "a directory, and what is written",
		"ipc/server/listen.go":            "a lock, of which nothing is read",
	}
	for _, dir := range []string{"cmd/bloq-agent", "cmd/bloq-token", "daemon", "store", "ipc", "accounts", "refresher"} {
		must(t, filepath.WalkDir("../"+dir, func(path string, entry fs.DirEntry, err error) error {
			switch path = strings.TrimPrefix(path, "../"); {
			case err != nil:
				return err
			case entry.IsDir() && (path == "store/trusted" || path == "accounts/sandbox" || strings.HasSuffix(path, "test")):
				return fs.SkipDir // the rule itself; what is not of the agent
			case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || allowed[path] != "":
				return nil
			}
			for _, call := range opens(t, "../"+path) {
				t.Errorf("%s calls %s", path, call)
			}
			return nil
		}))
	}
}

func opens(t *testing.T, path string) (calls []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	must(t, err)
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if pkg, ok := s.X.(*ast.Ident); ok && pkg.Name == "os" && (s.Sel.Name == "ReadFile" || s.Sel.Name == "Open" || s.Sel.Name == "OpenFile") {
			calls = append(calls, "os."+s.Sel.Name)
		}
		return true
	})
	return calls
}
