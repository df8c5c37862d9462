package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

func TestWhoAsked(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory", "--log-level", "info")
	if r := w.must("", "bloq-agent", "status", "--callers"); !strings.Contains(r.stdout, "nobody") {
		t.Errorf("at the start: %s", r.stdout)
	}
	w.login()
	for range 6 {
		w.must("", "bloq-token")
	}
	w.must("", "bloq-token", "header")
	var c ipc.Callers
	if err := json.Unmarshal([]byte(w.must("", "bloq-agent", "status", "--callers", "--json").stdout), &c); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, caller := range c.Callers {
		// The system may not let us see a process that ends at once; it does if
		// the answer and the look at it begin at the same time.
		if caller.Executable == filepath.Join(bin, "bloq-token") || caller.Executable == "bloq-token" {
			found = int(caller.Requests["token"] + caller.Requests["header"])
		}
	}
	t.Logf("%d of 7 requests have their program", found)
	if found < 4 {
		t.Errorf("%+v", c)
	}
	if r := w.must("", "bloq-agent", "status", "--callers"); !strings.Contains(r.stdout, "bloq-token") || !strings.Contains(r.stdout, "header 1") {
		t.Errorf("%s", r.stdout)
	}
	w.must("", "bloq-agent", "lock")
	for _, route := range []string{"adopt", "lock"} {
		if n := strings.Count(w.log.String(), `"route":"`+route+`","status":200`); n != 1 {
			t.Errorf("%s is logged %d times", route, n)
		}
	}
	if !regexp.MustCompile(`"peer_exe":"[^"]*bloq-agent"`).MatchString(w.log.String()) {
		t.Errorf("no peer in the log: %s", w.log.String())
	}
}

// Who wonders why a tool got nothing finds it here: what was asked for which host,
// on whose behalf, and the answer. Nothing else that the tool said is kept.
func TestWhyDidIGetNothing(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory", "--log-level", "debug")
	git := func(host string) string { return "protocol=https\nhost=" + host + "\npath=a-path/x\n" }
	w.run("", "bloq-token")
	w.login("--nodes-url", "https://nodes.example")
	w.run(git("github.com"), "bloq-token", "git", "get")
	w.run(git("nodes.example"), "git-credential-bloq", "get")
	w.run("registry.example:5000", "docker-credential-bloq", "get")
	w.run("", "bloq-token", "--profile", "nobody")
	w.run("", "docker-credential-bloq", "frob")
	w.must("", "bloq-agent", "lock")
	w.run(git("nodes.example"), "bloq-token", "git", "get")
	out := w.must("", "bloq-agent", "status", "--callers", "--json").stdout
	var c ipc.Callers
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	named := 0
	for _, q := range slices.Backward(c.Recent) {
		if !strings.HasPrefix(q.Asked, "git") && q.Asked != "docker" && q.Asked != "token" {
			continue
		}
		got = append(got, strings.Join([]string{q.Asked, q.Profile, q.Host, q.Answer}, " "))
		if q.For == strings.TrimSpace(string(self)) {
			named++
		}
	}
	want := []string{
		"token   needs_login", "git  github.com nothing", "git default nodes.example token", "docker  registry.example:5000 nothing",
		"token   unknown_profile", "docker   bad_request", "git default nodes.example locked",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant\n%q", got, want)
	}
	t.Logf("of %d requests %d have the program that ran the helper", len(got), named)
	if named < 4 {
		t.Errorf("%s", out)
	}
	if log := w.log.String(); strings.Contains(out+log, "a-path") || !strings.Contains(log, `"host":"github.com"`) || !strings.Contains(log, `"answer":"nothing"`) {
		t.Errorf("%s\n%s", out, log)
	}
	if r := w.must("", "bloq-agent", "status", "--callers"); !regexp.MustCompile(`bloq-token .* locked +nodes\.example +` + strings.TrimSpace(string(self))).MatchString(r.stdout) {
		t.Errorf("%s", r.stdout)
	}
}
