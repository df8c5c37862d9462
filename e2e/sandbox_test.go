package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/accounts/sandbox"
)

// A sandbox over TLS: nobody trusts it until tls_ca_file says so.
func TestTLSNeedsTrust(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	cmd := w.command("bloq-sandbox", "serve", "--listen", "127.0.0.1:0", "--tls")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var hello struct {
		AccountsURL string `json:"accounts_url"`
		NodesURL    string `json:"nodes_url"`
		Email       string `json:"email"`
		Password    string `json:"password"`
		CAFile      string `json:"ca_file"`
	}
	if err := json.Unmarshal(line, &hello); err != nil || !strings.HasPrefix(hello.NodesURL, "https://") {
		t.Fatalf("%s %v", line, err)
	}
	w.start("--store", "memory")
	login := []string{"login", "--accounts-url", hello.AccountsURL, "--user", hello.Email, "--password-stdin"}
	w.wants(w.run(hello.Password, "bloq-agent", login...), 5, "certificate", "if you trust that authority, ")
	config := filepath.Join(w.dir, "config", "bloq-agent", "config.toml")
	if err := os.MkdirAll(filepath.Dir(config), 0o700); err != nil {
		t.Fatal(err)
	}
	events := w.events()
	if err := os.WriteFile(config, []byte("tls_ca_file = \""+hello.CAFile+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.await(events, "the file is taken", isReload)
	w.must(hello.Password, "bloq-agent", login...)
	w.must("", "bloq-agent", "refresh")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the sandbox ended badly: %v", err)
	}
	stopped = true
	if _, err := os.Stat(hello.CAFile); err == nil {
		t.Error("the certificate's file is left behind")
	}
}

func TestBadInputOfTheSandbox(t *testing.T) {
	for _, tt := range []struct {
		args []string
		text string
	}{
		{[]string{"frob"}, `unknown command "frob"`},
		{[]string{"serve", "--frob"}, "frob"},
		{[]string{"serve", "extra"}, `no argument "extra"`},
		{[]string{"serve", "--access-ttl", "soon"}, "access-ttl"},
		{[]string{"serve", "--access-ttl", "0"}, "access-ttl"},
		{[]string{"serve", "--access-ttl", "-5s"}, "access-ttl"},
		{[]string{"serve", "--rotate", "sometimes"}, "none, strict, or grace=30s"},
		{[]string{"serve", "--listen", "localhost:4000"}, "an IP address and a port"},
		{[]string{"serve", "--listen", "0.0.0.0:4000"}, "others could reach it"},
		{[]string{"demo", "extra"}, `no argument "extra"`},
	} {
		out, err := exec.Command(filepath.Join(bin, "bloq-sandbox"), tt.args...).CombinedOutput()
		text := string(out)
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 2 || !strings.HasPrefix(text, "bloq-sandbox: error: ") || !strings.Contains(text, tt.text) {
			t.Errorf("%q: %v\n%s", tt.args, err, text)
		}
	}
	for _, args := range [][]string{{}, {"help"}, {"serve", "--help"}, {"demo", "--help"}, {"demo", "-h"}} {
		out, err := exec.Command(filepath.Join(bin, "bloq-sandbox"), args...).Output()
		if err != nil || !strings.Contains(strings.ToLower(string(out)), "usage") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
}

// Without a name, commands mean the only profile there is.
func TestTheOnlyProfileNeedsNoName(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login("-p", "work")
	r := w.must(w.pass, "bloq-agent", "login", "--user", w.user, "--password-stdin") // URLs as recorded
	if !strings.Contains(r.stdout, "profile work") || !strings.Contains(r.stderr, "hint: bloq-agent keys delete") {
		t.Errorf("%+v", r)
	}
	w.login("-p", "other")
	if r := w.run("", "bloq-token"); r.code != 2 || !strings.Contains(r.stderr, "default") {
		t.Errorf("two profiles and no name: %+v", r)
	}
	w.env = append(w.env, "BLOQ_PROFILE=other")
	if r := w.must("", "bloq-token", "json"); !strings.Contains(r.stdout, `"profile":"other"`) {
		t.Errorf("$BLOQ_PROFILE: %s", r.stdout)
	}
	if r := w.must("", "bloq-token", "-p", "work", "json"); !strings.Contains(r.stdout, `"profile":"work"`) {
		t.Errorf("--profile over $BLOQ_PROFILE: %s", r.stdout)
	}
}

// A login that fails after it made client keys names them, and the next one
// that works deletes them.
func TestALoginThatFailsHalfWayLeavesATrace(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	if err := w.api.Load().AddFault(sandbox.Fault{Route: "POST /auth/token", Kind: "status", Status: 503, Times: 1}); err != nil {
		t.Fatal(err)
	}
	args := []string{"login", "--accounts-url", w.url, "--user", w.user, "--password-stdin"}
	r := w.run(w.pass, "bloq-agent", args...)
	w.wants(r, 5, "a later login deletes them", "bloq-agent login --profile default")
	_, rest, _ := strings.Cut(r.stderr, "client keys ")
	id, _, _ := strings.Cut(rest, " ")
	if len(id) != 40 || !strings.Contains(w.state(), id) {
		t.Errorf("client keys %q are not in profiles.json:\n%s", id, w.state())
	}
	if r := w.run("", "bloq-token"); r.code != 3 {
		t.Errorf("after half a login: %+v", r)
	}
	// Young ones may be of a login under way, and are left alone.
	if r := w.must(w.pass, "bloq-agent", args...); strings.Contains(r.stderr, "deleted") || !strings.Contains(w.state(), id) {
		t.Errorf("%+v\n%s", r, w.state())
	}
	w.must("", "bloq-agent", "keys", "delete", w.status().ClientID)
	w.stop()
	w.age()
	w.start("--store", "memory")
	if r := w.must(w.pass, "bloq-agent", args...); !strings.Contains(r.stderr, "deleted client keys "+id) {
		t.Errorf("%+v", r)
	}
	if keys := w.must("", "bloq-agent", "keys", "list").stdout; strings.Contains(keys, id) || strings.Count(keys, "\n") != 1 {
		t.Errorf("keys: %s", keys)
	}
	if strings.Contains(w.state(), id) {
		t.Errorf("profiles.json still holds them:\n%s", w.state())
	}
}
