package e2e

import (
	"encoding/json"
	"path/filepath"
	"regexp"
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
