package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
	"bloq-agent/store/storetest"
)

func (w *world) configure(text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, "config", "bloq-agent", "config.toml")
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600)
	}
	if w.as != nil && err == nil {
		err = errors.Join(os.Chown(path, ordinaryUser, ordinaryUser), os.Chown(filepath.Dir(path), ordinaryUser, ordinaryUser))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) fault(f sandbox.Fault) {
	w.t.Helper()
	if err := w.api.Load().AddFault(f); err != nil {
		w.t.Fatal(err)
	}
}

// Neither a reload nor a login that is refused may cost a token that is valid.
func TestAChangeKeepsTheTokenAtHand(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login()
	token := w.must("", "bloq-token").stdout
	w.fault(sandbox.Fault{Route: "POST /auth/token", Kind: "status", Status: 401})
	events := w.events()
	w.configure("[profile.default]\nnodes_url = \"https://other.example\"\n")
	w.await(events, "the reload", func(e ipc.Event) bool {
		return e.Status != nil && e.Status.NodesURL == "https://other.example"
	})
	if got := w.must("", "bloq-token").stdout; got != token {
		t.Error("a reload changed the token")
	}
	r := w.run(foreignJWT, "bloq-agent", "add", "--accounts-url", w.url, "--nodes-url", "https://other.example", "--refresh-token-stdin")
	w.wants(r, 3, "refused the refresh token", "bloq-agent login")
	if got := w.must("", "bloq-token").stdout; got != token || w.status().Generation != 1 {
		t.Errorf("a refused login changed the token (generation %d)", w.status().Generation)
	}
}

// A rotated refresh token that could not be saved is the only one that is
// good: a reload must carry it over, and save it when that is possible again.
func TestAReloadWhileTheKeyringIsFrozenLosesNothing(t *testing.T) {
	service := storetest.StartSecretService(t)
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	w.useBus(service)
	w.start()
	w.login()
	events := w.events()
	if err := syscall.Kill(service.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.must("", "bloq-agent", "refresh")
	if s := w.status(); !s.Unsaved || !strings.Contains(s.LastError, "frozen") {
		t.Errorf("status hides it: %+v", s)
	}
	w.configure("[profile.default]\nnodes_url = \"https://other.example\"\n")
	w.await(events, "the reload", func(e ipc.Event) bool {
		return e.Status != nil && e.Status.NodesURL == "https://other.example"
	})
	if err := syscall.Kill(service.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.await(events, "the token is saved", func(e ipc.Event) bool { return e.Event == "saved" })
	w.must("", "bloq-agent", "refresh")
	generation := w.status().Generation
	w.stop()
	w.start()
	w.must("", "bloq-token")
	if n := w.api.Load().Stats().Reuse; n != 0 || generation < 3 {
		t.Errorf("%d refresh tokens used twice; generation %d", n, generation)
	}
}

func TestTwoDaemonsDoNotShareAStateDirectory(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	r := w.run("", "bloq-agent", "serve", "--socket", filepath.Join(w.dir, "other", "s"))
	pid := w.daemon.Process.Pid
	w.wants(r, 1, fmt.Sprintf("another bloq-agent uses this state directory (pid %d)", pid), fmt.Sprintf("kill %d", pid))
}

// A login that fails half-way leaves a profile alone that only waits for its
// store.
func TestAFailedLoginLeavesAWaitingProfileAlone(t *testing.T) {
	service := storetest.StartSecretService(t)
	w := newWorld(t, sandbox.Config{})
	w.useBus(service)
	w.start()
	w.login()
	w.stop()
	service.Lock(t)
	w.start()
	w.fault(sandbox.Fault{Route: "POST /auth/token", Grant: "clientCredentials", Times: 1, Kind: "status", Status: 503})
	if r := w.run(w.pass, "bloq-agent", "login", "--user", w.user, "--password-stdin", "--store", "memory"); r.code != 5 {
		t.Errorf("%+v", r)
	}
	events := w.events()
	service.Unlock(t)
	w.await(events, "the profile goes on by itself", func(e ipc.Event) bool { return e.Event == "refreshed" })
	w.must("", "bloq-token")
}

func TestAnEnvironmentThatTheConfigurationOverridesIsRefused(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.configure("[profile.default]\naccounts_url = \"" + w.url + "\"\n")
	w.start("--store", "memory")
	r := w.run(w.pass, "bloq-agent", "login", "--environment", "staging", "--user", w.user, "--password-stdin")
	w.wants(r, 5, "the configuration sets other URLs", "bloq-agent config check")
	if n := w.api.Load().Stats().Routes["POST /auth"]; n != 0 {
		t.Error("the password was sent")
	}
	w.must(w.pass, "bloq-agent", "login", "--user", w.user, "--password-stdin")
}

func TestAConfigurationThatIsNamedMustBeThere(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	for _, args := range [][]string{{"config", "check"}, {"serve"}} {
		w.wants(w.run("", "bloq-agent", append(args, "--config", w.dir+"/typo.toml")...), 2, "typo.toml: no such file", "bloq-agent config path")
	}
	if r := w.must("", "bloq-agent", "config", "check"); !strings.HasSuffix(r.stdout, "config.toml: not there; the defaults hold\n") {
		t.Errorf("%+v", r)
	}
	w.configure("")
	if r := w.must("", "bloq-agent", "config", "check"); !strings.HasSuffix(r.stdout, "config.toml: ok\n") {
		t.Errorf("an empty file: %+v", r)
	}
}

func TestTheEndOfARotatedRefreshTokenIsRecorded(t *testing.T) {
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	w.start("--store", "memory")
	w.login()
	w.setSandbox(func(c *sandbox.Config) { c.RefreshTTL = time.Hour })
	w.must("", "bloq-agent", "refresh")
	if left := time.Until(w.status().RefreshExpiry); left > time.Hour || left < 50*time.Minute {
		t.Errorf("status says %v", left)
	}
	var onDisk struct{ Profiles []ipc.ProfileStatus }
	if err := json.Unmarshal([]byte(w.state()), &onDisk); err != nil || !onDisk.Profiles[0].RefreshExpiry.Equal(w.status().RefreshExpiry) {
		t.Errorf("profiles.json: %v", err)
	}
}

// While a login is being replaced, a caller waits; nobody's connection breaks.
func TestCallersWaitWhileALoginIsReplaced(t *testing.T) {
	w := newWorld(t, sandbox.Config{AccessTTL: 2 * time.Second})
	w.start("--store", "memory")
	w.login()
	events := w.events()
	w.fault(sandbox.Fault{Route: "POST /auth/token", Grant: "refreshToken", Kind: "status", Status: 503})
	w.await(events, "the token runs out", func(e ipc.Event) bool { return e.Status != nil && e.Status.State == ipc.StateUnavailable })
	w.api.Load().ClearFaults()
	w.fault(sandbox.Fault{Route: "POST /auth/token", Grant: "refreshToken", Kind: "hang"})
	ended := make(chan result, 1)
	go func() {
		ended <- w.run(foreignJWT, "bloq-agent", "add", "--accounts-url", w.url, "--refresh-token-stdin")
	}()
	before := w.api.Load().Stats().Grants["refreshToken"]
	for w.api.Load().Stats().Grants["refreshToken"] == before {
		if r := w.run("", "bloq-token", "--timeout", "200ms"); r.code != 5 {
			t.Errorf("%+v", r)
		}
	}
	if r := w.run("", "bloq-token", "--timeout", "1"); r.code != 5 || strings.Contains(r.stderr, "broke") {
		t.Errorf("%+v", r)
	}
	w.api.Load().Close() // lets go of what hangs
	<-ended
}

// A stop waits for an exchange under way, and says so.
func TestAStopSaysWhatItWaitsFor(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login()
	w.fault(sandbox.Fault{Route: "POST /auth/token", Grant: "refreshToken", Kind: "hang"})
	ended := make(chan result, 1)
	go func() { ended <- w.run("", "bloq-agent", "refresh") }()
	deadline := time.Now().Add(20 * time.Second)
	wait := func(what string, f func() bool) {
		t.Helper()
		for !f() {
			if time.Now().After(deadline) {
				t.Fatalf("did not happen: %s\n%s", what, w.log.String())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	wait("the exchange", func() bool { return w.api.Load().Stats().Grants["refreshToken"] > 0 })
	must(t, w.daemon.Process.Signal(syscall.SIGTERM))
	wait("the line", func() bool {
		return w.log.contains(0, `"profile":"default"`) && w.log.contains(0, "waiting for the token endpoint")
	})
	w.api.Load().Close() // lets go of what hangs
	if err := w.daemon.Wait(); err != nil {
		t.Errorf("the daemon ended badly: %v", err)
	}
	<-ended
}

func TestFlagsAndNamesAreForgiving(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login("-p", "work")
	w.must("", "bloq-token", "--min-ttl", "5m", "--min-ttl=1m", "-p", "x", "--profile=work")
	for _, args := range [][]string{{"status", "-p", "wrok"}, {"keys", "list", "-p", "wrok"}, {"logout", "-p", "wrok"}} {
		w.wants(w.run("", "bloq-agent", args...), 2, `no such profile "wrok"`, `did you mean "work"?`)
	}
	w.must("", "bloq-agent", "keys", "delete", w.status().ClientID)
	w.must("", "bloq-agent", "logout", "--delete-keys") // they are gone already
}

// A directory that is there and closed to the daemon is neither an end nor a
// loop without one.
func TestAConfigurationThatCannotBeRead(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.asOrdinaryUser()
	w.configure("store = \"file\"\n")
	dir := filepath.Join(w.dir, "config", "bloq-agent")
	must(t, os.Chmod(dir, 0))
	w.start()
	r := w.run("", "bloq-agent", "status")
	if !strings.Contains(r.stderr, "configuration not taken") || !strings.Contains(r.stderr, "permission denied") {
		t.Errorf("%+v", r)
	}
	must(t, os.Chmod(dir, 0o700))
	must(t, w.daemon.Process.Signal(hup))
	for deadline := time.Now().Add(10 * time.Second); strings.Contains(w.run("", "bloq-agent", "status").stderr, "not taken"); {
		if time.Now().After(deadline) {
			t.Fatal("it is not read when it can be")
		}
	}
	w.stop()
}
