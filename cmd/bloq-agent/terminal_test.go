package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"bloq-agent/ipc"

	"github.com/spf13/cobra"
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
			for i := range s.Profiles {
				if r.URL.Query().Get("profile") != "" || !strings.Contains(r.Header.Get("User-Agent"), "table") {
					aim(&s.Profiles[i])
				}
			}
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

// An attempt to have a command write poison.
type say struct {
	args   []string
	stdin  string
	env    []string
	silent bool // what it was given is not repeated at all
}

// sayings are how each command is made to speak. Every one of them runs against a
// daemon that answers and against one that refuses, and with hostile arguments.
func sayings() map[string][]say {
	login := []string{"--user", poison, "--password-stdin"}
	return map[string][]say{
		"": {{args: []string{poison}}, {args: []string{"--" + poison}}, {args: []string{"--help"}, env: []string{"BLOQ_PROFILE=" + poison}, silent: true}},
		"serve": {
			{args: []string{"--store", poison}},
			{args: []string{"--log-level", poison}},
			{args: []string{"--log-format", poison}},
			{args: []string{"--config", poison}},
			{args: []string{"--socket", "/dev/null/" + poison + "/s"}, silent: true},
			{args: []string{"--socket", "/tmp/" + strings.Repeat("x", 120) + poison}},
		},
		"login": {
			{args: login, stdin: "password"},
			{args: []string{"--accounts-url", poison}},
			{args: []string{"--login-url", "http://" + poison}},
			{args: []string{"--help"}, env: []string{"BLOQ_PROFILE=" + poison}},
		},
		"add": {
			{args: []string{"--client-id", poison, "--client-secret-stdin"}, stdin: "secret"},
			{args: []string{"--refresh-token-stdin"}, stdin: "token"},
			{args: []string{"--refresh-token-stdin", "--nodes-url", "https://" + poison}},
		},
		"status": {
			{args: nil},
			{args: []string{"--json"}},
			{args: []string{"--callers"}},
			{args: []string{"--callers", "--json"}},
			{args: []string{"--watch"}},
			{args: []string{"--watch", "--json"}},
			{args: []string{"-p", poison}},
			{args: []string{"--socket", "/dev/null/" + poison}},
			{env: []string{"BLOQ_AGENT_SOCK=/dev/null/" + poison}},
		},
		"refresh":       {{}, {args: []string{"-p", poison}}},
		"logout":        {{}, {args: []string{"--delete-keys"}}},
		"keys":          {{args: []string{poison}}},
		"keys list":     {{}},
		"keys create":   {{}},
		"keys delete":   {{args: []string{poison}}, {args: []string{"x", poison}}},
		"lock":          {{}},
		"unlock":        {{silent: true}, {args: []string{"--passphrase-stdin"}, stdin: "x", silent: true}},
		"store":         {{args: []string{poison}}},
		"store move":    {{args: []string{"--to", "file"}}},
		"store protect": {{args: []string{"--passphrase-stdin"}, stdin: "x", silent: true}},
		"import":        {{args: []string{poison}}},
		"import bcl":    {{}, {args: []string{"--dry-run"}}, {env: []string{"XDG_CONFIG_HOME=/dev/null/" + poison}}},
		"exec": {
			{args: []string{"--env", poison, "--", "true"}},
			{args: []string{"--min-ttl", poison, "--", "true"}},
			{args: []string{"--", poison}},
			{args: []string{"--", "./" + poison}},
			{args: []string{"--env", "git", "--", "true"}, env: []string{"GIT_CONFIG_COUNT=" + poison}},
			{args: []string{"--min-ttl", "24h", "--", "true"}, silent: true},
		},
		"config":       {{args: []string{poison}}},
		"config check": {{}, {args: []string{"--config", poison}}, {env: []string{"XDG_CONFIG_HOME=/dev/null/" + poison}}},
		"config path":  {{args: []string{"--config", poison}}, {env: []string{"XDG_CONFIG_HOME=/dev/null/" + poison}}},
		"version":      {{args: []string{poison}}},
		"completion":   {{args: []string{poison}, silent: true}, {args: []string{"bash"}, env: []string{"BLOQ_PROFILE=" + poison}, silent: true}},
		"help":         {{args: []string{poison}}, {args: []string{"login"}, env: []string{"BLOQ_PROFILE=" + poison}}},
		// What cobra itself says of a wrong flag here is dropped by the scripts.
		"__complete": {{args: []string{poison, ""}, silent: true}},
	}
}

// What comes from outside never reaches a terminal as it is, whichever command
// shows it. A command that is not in the table fails.
func TestNothingFromOutsideMovesTheCursor(t *testing.T) {
	table := sayings()
	var visit func(*cobra.Command, string)
	visit = func(c *cobra.Command, path string) {
		if _, ok := table[path]; !ok {
			t.Errorf("%q is not in the table", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			visit(sub, strings.TrimSpace(path+" "+sub.Name()))
		}
	}
	visit(rootCommand(), "")
	answers, refusals := newWorld(t, false), newWorld(t, true)
	for path, list := range table {
		for _, s := range list {
			words := append(strings.Fields(path), s.args...)
			a, r := answers.run(t, words, s), refusals.run(t, words, s)
			if !s.silent && !strings.Contains(a+r, "MARK") {
				t.Errorf("%q shows nothing of what it was told, so this proves nothing:\n%s\n%s", words, a, r)
			}
		}
	}
}

// run runs a command, and looks at what it wrote.
func (w *world) run(t *testing.T, words []string, s say) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], words...)
	cmd.Dir = w.dir
	cmd.Env = append([]string{
		asProgram + "=1", "HOME=" + w.dir, "PATH=" + os.Getenv("PATH"), "XDG_CONFIG_HOME=" + filepath.Join(w.dir, "config"),
		"XDG_STATE_HOME=" + filepath.Join(w.dir, "state"), "XDG_RUNTIME_DIR=" + w.dir, "BLOQ_AGENT_SOCK=" + w.socket,
	}, s.env...)
	cmd.Stdin = strings.NewReader(s.stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait() // how it exits is not the question
	if !late.Stop() {
		t.Errorf("%q did not end", words)
	}
	harmless(t, words, out.String())
	return out.String()
}

func harmless(t *testing.T, words []string, out string) {
	t.Helper()
	bad := strings.IndexFunc(out, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' })
	if bad >= 0 || !utf8.ValidString(out) {
		t.Errorf("%q writes %.40q", words, out[max(bad, 0):])
	}
	if strings.Contains("\n"+out, "\nINJECTED") || strings.Contains(out, "\tx") {
		t.Errorf("%q writes a line or a column of somebody else:\n%s", words, out)
	}
}

// A question is a text too.
func TestAQuestionDoesNotMoveTheCursor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := os.Stderr
	os.Stderr = w
	question("%s: ", "password of "+poison)
	os.Stderr = stderr
	_ = w.Close()
	out, err := io.ReadAll(r)
	if err != nil || !strings.Contains(string(out), "MARK") {
		t.Errorf("%q, %v", out, err)
	}
	harmless(t, []string{"question"}, string(out))
}

// A command that is still to come cannot forget: one file writes, and it takes
// no format that is not a constant (vet).
func TestOneFileWrites(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string][]string{"serve.go": {"os.Stderr"}} // the log, which daemon.NewLogger escapes
	for _, name := range files {
		if name == "screen.go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && writes(x.Name, s.Sel.Name) && !slices.Contains(allowed[name], x.Name+"."+s.Sel.Name) {
					t.Errorf("%s uses %s.%s", name, x.Name, s.Sel.Name)
				}
			}
			if i, ok := n.(*ast.ImportSpec); ok && strings.HasPrefix(i.Path.Value, `"log`) {
				t.Errorf("%s imports %s", name, i.Path.Value)
			}
			if id, ok := n.(*ast.Ident); ok && (id.Name == "println" || id.Name == "print") {
				t.Errorf("%s uses %s", name, id.Name)
			}
			return true
		})
	}
}

func writes(pkg, name string) bool {
	switch pkg {
	case "os":
		return name == "Stdout" || name == "Stderr" || name == "NewFile"
	case "fmt":
		return strings.HasPrefix(name, "Print") || strings.HasPrefix(name, "Fprint")
	case "cmd", "root":
		return strings.HasPrefix(name, "Print") || name == "SetOut" || name == "SetErr"
	}
	return false
}
