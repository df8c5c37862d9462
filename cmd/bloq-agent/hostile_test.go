package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"bloq-agent/ipc"
)

// asProgram makes the test binary the program.
const asProgram = "BLOQ_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// poison is what no terminal may be sent as it is: a title, a colour and a
// movement of the cursor by CSI and by its C1 form, text turned around, a return
// over what was written, a line of its own, a broken byte.
const poison = "MARK\x1b]0;owned\a\x1b[2J\u009b31m\u202etxt\u0085\r\nINJECTED\tx\x7f\x9b"

// wirePoison is what JSON can hold of it.
var wirePoison = strings.ToValidUTF8(poison, "")

// fill puts poison into every string that v holds.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(wirePoison)
	case reflect.Int, reflect.Int64:
		v.SetInt(77)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Now().Add(time.Hour).UTC()))
			return
		}
		for _, field := range v.Fields() {
			fill(field)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(wirePoison))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	}
}

func poisoned[T any](change func(*T)) T {
	var v T
	fill(reflect.ValueOf(&v).Elem())
	if change != nil {
		change(&v)
	}
	return v
}

// A world is what a command can hear from: a daemon, an endpoint and files, none
// of which means well.
type world struct {
	dir, socket, url string
	refuse           bool // the daemon refuses everything
}

func newWorld(t *testing.T, refuse bool) *world {
	dir, err := os.MkdirTemp("", "bloq-terminal-") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	endpoint := httptest.NewServer(http.HandlerFunc(hostileEndpoint))
	t.Cleanup(endpoint.Close)
	w := &world{dir: dir, socket: filepath.Join(dir, "s"), url: endpoint.URL, refuse: refuse}
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(w.hostileDaemon)}
	go func() { _ = server.Serve(l) }() // ends with Close
	t.Cleanup(func() { _ = server.Close() })
	w.write(t, "config/bloq-agent/config.toml", "\"MARK\\u001b]0;x\\u0007\\nINJECTED\\u202e\" = 1\nlog_level = \"\\u009b31mMARK\"\n[profile.\"\\u001bMARK\\nINJECTED\"]\n")
	w.write(t, "config/@bloq/cloud-cli-nodejs/config.json", mustJSON(map[string]any{
		"env": "local", "user": wirePoison, "accessToken": jwt(time.Now().Add(time.Hour)), "clientId": wirePoison, "clientSecret": wirePoison,
		"services": map[string]any{"local": map[string]any{"accounts": map[string]any{"url": w.url}}},
	}))
	return w
}

func (w *world) write(t *testing.T, name, content string) {
	path := filepath.Join(w.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func jwt(expiry time.Time) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256"}`)) + "." + part(fmt.Appendf(nil, `{"exp":%d}`, expiry.Unix())) + ".c2ln"
}

func hostileEndpoint(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	good := jwt(time.Now().Add(time.Hour))
	switch {
	case strings.HasSuffix(r.URL.Path, "/client-keys") && r.Method == http.MethodGet:
		_, _ = io.WriteString(w, mustJSON([]any{map[string]any{"id": wirePoison, "createdAt": time.Now()}}))
	case strings.Contains(r.URL.Path, "/client-keys/"):
		http.Error(w, mustJSON(map[string]string{"code": wirePoison, "message": wirePoison}), http.StatusConflict)
	case strings.HasSuffix(r.URL.Path, "/client-keys"):
		_, _ = io.WriteString(w, mustJSON(map[string]string{"clientId": wirePoison, "clientSecret": wirePoison}))
	default:
		_, _ = io.WriteString(w, mustJSON(map[string]string{
			"accessToken": good, "refreshToken": good, "access_token": good, "refresh_token": good, "token_type": "Bearer",
		}))
	}
}

func (w *world) hostileDaemon(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Content-Type", "application/json")
	if w.refuse {
		rw.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(rw, mustJSON(poisoned(func(p *ipc.Problem) { p.Code = ipc.CodeNeedsLogin })))
		return
	}
	aim := func(p *ipc.ProfileStatus) {
		p.LoginURL, p.TokenURL, p.KeysURL, p.NodesURL = w.url, w.url, w.url+"/client-keys", w.url
	}
	var answer any
	switch r.URL.Path {
	case ipc.RouteStatus, ipc.RouteLock, ipc.RouteUnlock, ipc.RouteProtect:
		answer = poisoned(func(s *ipc.Status) {
			s.Config.Path = filepath.Join(w.dir, "none")
			aim(&s.Profiles[1]) // the one that is logged in
			s.Profiles[1].Profile = "default"
		})
	case ipc.RouteRefresh, ipc.RouteStore:
		answer = poisoned[ipc.ProfileStatus](nil)
	case ipc.RouteCallers:
		answer = poisoned[ipc.Callers](nil)
	case ipc.RouteToken:
		answer = poisoned(func(a *ipc.TokenAnswer) { a.Token, a.Profile = ipc.Text(jwt(time.Now().Add(time.Hour))), wirePoison })
	case ipc.RouteAdopt:
		answer = poisoned(func(a *ipc.Adopted) {
			a.LoginURL, a.TokenURL, a.KeysURL, a.NodesURL = w.url, w.url, w.url+"/client-keys", w.url
			a.Pending = []string{wirePoison}
		})
	case ipc.RouteEvents:
		_, _ = fmt.Fprintf(rw, "data: %s\n\n", mustJSON(poisoned[ipc.Event](nil)))
		return
	case ipc.RouteForget:
		answer = poisoned[ipc.Named](nil)
	}
	_, _ = io.WriteString(rw, mustJSON(answer))
}
