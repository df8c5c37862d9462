package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bloq-agent/accounts"
	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

// item is the file of the only login.
func (w *world) item() string {
	w.t.Helper()
	files, err := filepath.Glob(w.dir + "/state/bloq-agent/*.age")
	if err != nil || len(files) != 1 {
		w.t.Fatalf("%q, %v", files, err)
	}
	return files[0]
}

func (w *world) noReuse() {
	w.t.Helper()
	if n := w.api.Load().Stats().Reuse; n != 0 {
		w.t.Errorf("%d refresh tokens used twice", n)
	}
}

// What an endpoint was seen to do is not forgotten over a move or a restart: a
// token that rotates is not spent while its successor could not be saved.
func TestThatAnEndpointRotatesOutlivesAMove(t *testing.T) {
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	w.asOrdinaryUser()
	w.start("--store", "memory")
	w.login()
	w.must("", "bloq-agent", "refresh")
	w.must("", "bloq-agent", "store", "move", "--to", "file")
	state := w.dir + "/state/bloq-agent"
	for _, when := range []string{"after the move", "after a restart"} {
		must(t, os.Chmod(state, 0o500))
		w.wants(w.run("", "bloq-agent", "refresh"), 5, "not refreshing while the store cannot be written", "bloq-agent status")
		must(t, os.Chmod(state, 0o700))
		w.kill()
		w.start()
		w.must("", "bloq-token")
		if t.Failed() {
			t.Fatal(when)
		}
	}
	w.noReuse()
}

// An older copy of the login that is put back in the store costs nothing.
func TestAnOlderCopyPutBackCostsNothing(t *testing.T) {
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	w.start("--store", "file")
	w.login()
	old, err := os.ReadFile(w.item())
	must(t, err)
	w.must("", "bloq-agent", "refresh")
	w.must("", "bloq-agent", "refresh")
	must(t, os.WriteFile(w.item(), old, 0o600))
	w.must("", "bloq-agent", "refresh")
	w.noReuse()
	w.kill()
	w.start("--store", "file")
	w.must("", "bloq-token")
	w.noReuse()
}

// A login of a refresh token alone spends it. What the endpoint made of it is kept,
// even if the answer holds no access token.
func TestAddKeepsARotatedToken(t *testing.T) {
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	w.start("--store", "file")
	w.fault(sandbox.Fault{
		Route: "POST /auth/token", Grant: "refreshToken", Kind: "status", Status: 200, Times: 1,
		Body: `{"accessToken":"","refreshToken":"` + w.mint() + `"}`,
	})
	r := w.must(foreignJWT, "bloq-agent", "add", "--accounts-url", w.url, "--refresh-token-stdin")
	if !strings.Contains(r.stderr, "not proved yet") {
		t.Errorf("%+v", r)
	}
	w.must("", "bloq-token")
	w.noReuse()
}

// mint is a refresh token that nobody has.
func (w *world) mint() string {
	w.t.Helper()
	client, err := accounts.New(accounts.FromAccountsURL(w.url), accounts.Options{})
	must(w.t, err)
	account, err := client.Login(w.t.Context(), w.user, []byte(w.pass))
	must(w.t, err)
	key, err := client.CreateKey(w.t.Context(), account.AccessToken)
	must(w.t, err)
	g, err := client.ClientCredentials(w.t.Context(), key.ID, key.Secret)
	must(w.t, err)
	return string(g.RefreshToken)
}

// A caller who does not wait decides nothing for others, and what a hint mends is
// seen by the next one.
func TestACallerWhoDoesNotWaitDecidesNothing(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.start("--store", "file")
	w.login()
	w.stop()
	must(t, os.Chmod(w.item(), 0o644))
	w.start()
	w.wants(w.run("", "bloq-token"), 5, "mode 0644", "chmod 600 "+w.item())
	from := len(w.log.String())
	for range 20 {
		if text := w.hurried(); !strings.Contains(text, "mode 0644") {
			t.Errorf("the answer: %s", text)
		}
	}
	must(t, os.Chmod(w.item(), 0o600))
	_ = w.hurried() // the first to see that it is mended
	w.must("", "bloq-token")
	if log := w.log.String()[from:]; strings.Contains(log, "deadline") || strings.Contains(log, `"code":"configuration"`) {
		t.Errorf("logged:\n%s", log)
	}
}

// hurried asks for a token and does not wait for it.
func (w *world) hurried() (answer string) {
	w.t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://bloq-agent"+ipc.RouteToken, nil)
	must(w.t, err)
	r.Header.Set(ipc.HeaderWait, "0")
	a, err := w.client().Do(r)
	must(w.t, err)
	defer func() { _ = a.Body.Close() }()
	body, err := io.ReadAll(a.Body)
	must(w.t, err)
	return string(body)
}
