package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
	"bloq-agent/store/storetest"
)

func (w *world) status() ipc.ProfileStatus {
	w.t.Helper()
	var s ipc.Status
	if err := json.Unmarshal([]byte(w.must("", "bloq-agent", "status", "--json").stdout), &s); err != nil || len(s.Profiles) != 1 {
		w.t.Fatalf("%+v, %v", s, err)
	}
	return s.Profiles[0]
}

// Each hint stands beside its profile; stderr keeps to one error and one hint.
func TestStatusOfSeveralBrokenProfiles(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login("-p", "a")
	w.login("-p", "b")
	w.fault(sandbox.Fault{Route: "POST /auth/token", Kind: "status", Status: 400, Body: `{"error":"invalid_grant"}`})
	w.wants(w.run("", "bloq-agent", "refresh", "-p", "b"), 3, "b: needs login", "bloq-agent login --profile b")
	r := w.run("", "bloq-agent", "status")
	if strings.Contains(r.stdout, "hint") {
		t.Errorf("one hint belongs on stderr:\n%s", r.stdout)
	}
	r.stdout = ""
	w.wants(r, 3, "b: needs login", "bloq-agent login --profile b")
	w.wants(w.run("", "bloq-agent", "refresh", "-p", "a"), 3, "a: needs login", "bloq-agent login --profile a")
	r = w.run("", "bloq-agent", "status")
	for _, line := range []string{"a: hint: bloq-agent login --profile a\n", "b: hint: bloq-agent login --profile b\n"} {
		if !strings.Contains(r.stdout, line) {
			t.Errorf("no line %q in\n%s", line, r.stdout)
		}
	}
	r.stdout = ""
	w.wants(r, 3, "a: needs login", "bloq-agent login --profile a")
}

// Two loops on one profile would spend two refresh tokens.
func TestALoginThatIsReplacedStopsExchanging(t *testing.T) {
	w := newWorld(t, sandbox.Config{AccessTTL: 2 * time.Second})
	w.start("--store", "memory")
	w.login()
	w.login()
	before := w.api.Load().Stats().Grants["refreshToken"]
	already := w.status().Exchanges
	events := w.events()
	for n := 0; n < 4; {
		if e := w.await(events, "refreshes", func(e ipc.Event) bool { return e.Event == "refreshed" }); e.Status.Exchanges > already {
			n++
		}
	}
	w.must("", "bloq-agent", "refresh")
	s, exchanges := w.api.Load().Stats(), w.status().Exchanges
	if got := s.Grants["refreshToken"] - before; got != int(exchanges-already) {
		t.Errorf("the endpoint saw %d exchanges, the daemon knows of %d", got, exchanges-already)
	}
}

// If the new login cannot be recorded, the old one goes on with its own secrets.
func TestALoginThatCannotBeRecordedChangesNothing(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "memory")
	w.login()
	token := w.must("", "bloq-token").stdout
	id := w.status().ClientID
	record := w.dir + "/state/bloq-agent/profiles.json"
	must(t, os.Rename(record, record+".away"))
	must(t, os.Mkdir(record, 0o700)) // no file can take its place
	secret := w.must("", "bloq-agent", "keys", "create").stdout
	fields := strings.Fields(secret)
	newID, newSecret := fields[2], fields[len(fields)-1]
	w.secrets.add("client secret", newSecret)
	r := w.run(newSecret, "bloq-agent", "add", "--accounts-url", w.url, "--client-id", newID, "--client-secret-stdin")
	w.wants(r, 1, "recording the profile", "")
	must(t, os.Remove(record))
	must(t, os.Rename(record+".away", record))
	if again := w.must("", "bloq-token").stdout; again != token || w.status().Generation != 1 {
		t.Errorf("the token at hand was lost: generation %d", w.status().Generation)
	}
	w.must("", "bloq-agent", "refresh")
	if got := w.subject(strings.TrimSpace(w.must("", "bloq-token").stdout)); got != id {
		t.Errorf("the token belongs to %s, the login to %s", got, id)
	}
	if got := w.status().ClientID; got != id {
		t.Errorf("status says %s", got)
	}
}

// subject is whom the Nodes API takes the bearer for.
func (w *world) subject(token string) string {
	w.t.Helper()
	r, err := http.NewRequest(http.MethodGet, w.url+"/nodes/v1/status", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	var body struct{ Subject string }
	b, _ := io.ReadAll(a.Body)
	if err := json.Unmarshal(b, &body); err != nil {
		w.t.Fatalf("%s: %v", b, err)
	}
	return body.Subject
}

// A keyring that does not answer when the daemon starts is waited for, not
// given up: nobody restarts anything.
func TestAKeyringThatIsFrozenAtTheStart(t *testing.T) {
	service := storetest.StartSecretService(t)
	w := newWorld(t, sandbox.Config{})
	for _, kv := range service.Env {
		if strings.HasPrefix(kv, "DBUS_SESSION_BUS_ADDRESS=") {
			w.env = append(w.env, kv)
		}
	}
	w.start()
	w.login()
	w.stop()
	if err := syscall.Kill(service.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.wants(w.run("", "bloq-token"), 5, "waiting for the keyring (frozen)", "bloq-agent status")
	if err := syscall.Kill(service.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for w.run("", "bloq-token").code != 0 {
		if time.Now().After(deadline) {
			t.Fatalf("the keyring answers again, the daemon does not notice\n%s", w.log.String())
		}
	}
}
