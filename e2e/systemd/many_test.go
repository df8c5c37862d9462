package systemd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"bloq-agent/daemon/config"
	"bloq-agent/ipc"
	"bloq-agent/store"
)

// A thousand profiles: the unit gets ready and stays up, and each command is
// answered. CI asserts ten times the figures.
func TestAThousandProfiles(t *testing.T) {
	t.Parallel()
	const n = 1000
	h := ready(t)
	u := h.userUnit("alice")
	u.quick()
	h.serving()
	u.systemctl("stop", "bloq-agent.service")
	h.must("alice", "env", "BLOQ_E2E_INSIDE=fill", "inside", strconv.Itoa(n))
	within := func(what string, limit time.Duration, f func()) {
		t.Helper()
		start := time.Now()
		f()
		took := time.Since(start)
		t.Logf("%s after %v", what, took.Round(time.Millisecond))
		if took > 10*limit {
			t.Errorf("%s after %v", what, took)
		}
	}
	within("ready", 2*time.Second, func() { u.systemctl("start", "bloq-agent.service") })
	var status ipc.Status
	fresh := func() (n int) {
		status = ipc.Status{}
		answer := h.must("alice", "bloq-agent", "status", "--json")
		if err := json.Unmarshal([]byte(answer), &status); err != nil {
			t.Fatal(err)
		}
		for _, p := range status.Profiles {
			if p.State == ipc.StateFresh {
				n++
			}
		}
		return n
	}
	within("the first status", 2*time.Second, func() { fresh() })
	h.eventually(60*time.Second, "each profile is fresh", func() bool { return fresh() == n })
	within("the next status", 2*time.Second, func() { fresh() })
	t.Logf("kept: %s; line: %s", status.TokensKept, u.show("service", "StatusText"))
	t.Logf("%s kB resident, %s at most, %s threads", u.process("VmRSS"), u.process("VmHWM"), u.process("Threads"))
	if kB, err := strconv.Atoi(u.process("VmRSS")); err != nil || kB > 64<<10 {
		t.Errorf("%d kB resident, %v", kB, err)
	}
	if line := u.show("service", "StatusText"); !strings.HasPrefix(line, fmt.Sprintf("profiles: %d fresh; ", n)) {
		t.Errorf("the line of status: %s", line)
	}
	u.systemctl("reload", "bloq-agent.service")
	time.Sleep(5 * time.Second) // two of the watchdog's times
	within("locked", 2*time.Second, func() { h.must("alice", "bloq-agent", "lock") })
	t.Logf("%s kB resident, %s at most, %s threads", u.process("VmRSS"), u.process("VmHWM"), u.process("Threads"))
	within("unlocked", 2*time.Second, func() { h.must("alice", "bloq-agent", "unlock") })
	if n := u.restarts(); n != 0 {
		t.Errorf("%d restarts\n%s", n, h.journal())
	}
}

// process is a value of the daemon's /proc/PID/status.
func (u unit) process(key string) string {
	u.h.t.Helper()
	status := u.h.must("root", "cat", "/proc/"+u.show("service", "MainPID")+"/status")
	_, rest, _ := strings.Cut(status, "\n"+key+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSuffix(strings.TrimSpace(line), " kB")
}

// fill makes copies of the login of profile default, until there are n profiles.
func fill(n string) int {
	state, err := config.StateDir(os.Getenv)
	if err != nil {
		panic(err)
	}
	keys, err := config.KeyDir(os.Getenv)
	if err != nil {
		panic(err)
	}
	count, err := strconv.Atoi(n)
	if err != nil {
		panic(err)
	}
	records, err := store.OpenProfiles(state)
	if err != nil {
		panic(err)
	}
	files := store.NewFile(state, store.NewKey(keys, ""))
	first := records.List()[0]
	item, err := files.Load(context.Background(), first.ID)
	for i := 1; i < count && err == nil; i++ {
		r := first
		r.Name, r.ID = fmt.Sprintf("profile-%d", i), store.NewID()
		if err = files.Save(context.Background(), r.ID, item); err == nil {
			err = records.Put(r)
		}
	}
	if err != nil {
		panic(err)
	}
	return 0
}
