package dialect

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bloq-agent/ipc"
)

var update = flag.Bool("update", false, "write the golden files")

func sample() Token {
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.FixedZone("", 3600))
	value := append(make([]byte, 0, 64), "eyJ.eyJ.sig"...)
	return Token{Profile: "work", Value: value, IssuedAt: at, Expiry: at.Add(time.Hour), RefreshAt: at.Add(33 * time.Minute), Generation: 7}
}

func hosts(t testing.TB, entries ...string) Hosts {
	t.Helper()
	var all Hosts
	for _, e := range entries {
		h, err := ParseHost(e)
		if err != nil {
			t.Fatalf("%s: %v", e, err)
		}
		all = append(all, h...)
	}
	return all
}

// ours are the hosts of the golden files' profile.
func ours(t testing.TB) Hosts {
	return hosts(t, "nodes.bloq.cloud", "*.bloq.example", "127.0.0.1:4000", "[::1]:4001")
}

// answer does what the daemon does.
func answer(t testing.TB, d Dialect, call ipc.Call, tok Token, problem *ipc.Problem) Answer {
	t.Helper()
	q, settled := d.Ask(call)
	if settled != nil {
		return *settled
	}
	q.Hosts, q.Username = ours(t), "bloq"
	switch {
	case d.NamesHosts() && !q.AllHosts && !q.Hosts.Allows(q.Target):
		return d.Nothing(q)
	case problem != nil:
		return d.Fail(q, problem)
	}
	return d.Render(q, tok)
}

const (
	execInfo = `KUBERNETES_EXEC_INFO={"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","spec":{"interactive":false}}`
	cargoGet = `{"v":1,"registry":{"index-url":"sparse+https://nodes.bloq.cloud/index/","name":"bloq","headers":["WWW-Authenticate: Cargo login_url=x"]},"kind":"get","operation":"read","args":[]}`
)

func in(stdin string, args ...string) ipc.Call { return ipc.Call{Args: args, Stdin: []byte(stdin)} }

// calls are what each dialect is asked in the golden files, by the real tools'
// own words.
var calls = map[string]map[string]ipc.Call{
	"token": {"": in("")}, "bearer": {"": in("")}, "header": {"": in("")}, "json": {"": in("")}, "curl": {"": in("")}, "env": {"": in("")},
	"git": {
		"get-2.47":    in("capability[]=authtype\ncapability[]=state\nprotocol=https\nhost=nodes.bloq.cloud\nwwwauth[]=Bearer realm=\"bloq\"\n", "get"),
		"get-2.39":    in("protocol=http\nhost=127.0.0.1:4000\npath=r.git\n\n", "get"),
		"get-user":    in("protocol=https\nhost=nodes.bloq.cloud\nusername=ada\n", "get"),
		"get-other":   in("protocol=https\nhost=github.com\n", "get"),
		"get-nothing": in("", "get"),
		"get-garbage": in("protocol\n", "get"),
		"store":       in("protocol=https\nhost=nodes.bloq.cloud\nusername=oauth2\npassword=x\n", "store"),
		"erase":       in("protocol=https\nhost=nodes.bloq.cloud\nusername=oauth2\npassword=x\n", "erase"),
		"unknown":     in("", "frobnicate"),
		"bare":        in(""),
	},
	"kubectl": {
		"": in(""), "v1beta1": {Env: []string{execInfo}}, "unknown": {Env: []string{strings.Replace(execInfo, "v1beta1", "v9", 1)}},
		"garbage": {Env: []string{"KUBERNETES_EXEC_INFO=x"}},
	},
	"goauth": {
		"first": in(""), "second": in("HTTP/1.1 401 Unauthorized\nX: y\n\n", "https://nodes.bloq.cloud/gomod/x"),
		"other": in("HTTP/1.1 404 Not Found\n\n", "https://proxy.example/x"), "two": in("", "https://a.example", "https://b.example"),
	},
	"cargo": {
		"get": in(cargoGet, "--cargo-plugin"), "get-other": in(strings.Replace(cargoGet, "nodes.bloq.cloud", "crates.example", 1), "--cargo-plugin"),
		"get-profile":  in(strings.Replace(cargoGet, `"args":[]`, `"args":["--profile","work"]`, 1), "--cargo-plugin"),
		"get-badflag":  in(strings.Replace(cargoGet, `"args":[]`, `"args":["--frob"]`, 1), "--cargo-plugin"),
		"get-git":      in(strings.Replace(cargoGet, "sparse+", "registry+", 1), "--cargo-plugin"),
		"login":        in(strings.Replace(cargoGet, `"kind":"get"`, `"kind":"login"`, 1), "--cargo-plugin"),
		"future":       in(strings.Replace(cargoGet, `"v":1`, `"v":2`, 1), "--cargo-plugin"),
		"garbage":      in("x", "--cargo-plugin"),
		"not-by-cargo": in(""),
	},
	"terraform": {
		"get": in("", "get", "nodes.bloq.cloud"), "get-other": in("", "get", "app.terraform.io"), "get-port": in("", "get", "127.0.0.1:4000"),
		"store": in("{}", "store", "nodes.bloq.cloud"), "forget": in("", "forget", "nodes.bloq.cloud"), "bare": in(""), "unknown": in("", "a\x1bb", "x"),
	},
	"docker": {
		"get": in("127.0.0.1:4000", "get"), "get-url": in("https://nodes.bloq.cloud/v2/\n", "get"), "get-other": in("https://index.docker.io/v1/", "get"),
		"get-empty": in("", "get"), "store": in(`{"ServerURL":"x"}`, "store"), "erase": in("x", "erase"), "list": in("unused", "list"), "bare": in(""), "unknown": in("", "version"),
	},
	"bazel": {
		"get": in(`{"uri":"https://nodes.bloq.cloud/x","more":1}`, "get"), "get-other": in(`{"uri":"https://github.com/x"}`, "get"),
		"garbage": in("x", "get"), "bare": in(""),
	},
}

func TestGolden(t *testing.T) {
	problems := map[string]*ipc.Problem{
		"ok":          nil,
		"needs-login": {Code: ipc.CodeNeedsLogin, Detail: "work: needs login", Hint: "bloq-agent login --profile work"},
		"unavailable": {Code: ipc.CodeUnavailable, Detail: "work: no valid token: refresh: 503 Service Unavailable"},
	}
	seen := map[string]bool{}
	for name, d := range all {
		if len(calls[name]) == 0 {
			t.Errorf("%s has no calls here", name)
		}
		for what, call := range calls[name] {
			for state, problem := range problems {
				if problem != nil && !failing(t, d, call) {
					continue // the answer has nothing to do with a token
				}
				tok := sample()
				if problem != nil {
					tok = Token{}
				}
				a := answer(t, d, call, tok, problem)
				got := "exit " + strconv.Itoa(a.Exit) + "\n-- stdout --\n" + string(a.Stdout) + "-- stderr --\n" + string(a.Stderr)
				file := strings.ReplaceAll(name+"."+what+"."+state+".golden", "..", ".")
				seen[file] = true
				golden(t, filepath.Join("testdata", file), got)
			}
		}
	}
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !seen[filepath.Base(f)] {
			t.Errorf("%s belongs to nothing", f)
		}
	}
}

func TestTheProtocolNamesEveryDialect(t *testing.T) {
	text, err := os.ReadFile("../../ipc/PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range all {
		if !strings.Contains(string(text), "\n| `"+name+"` | ") {
			t.Errorf("PROTOCOL.md's section 4 has no %s", name)
		}
	}
}

// failing reports whether a problem can be the answer to call.
func failing(t *testing.T, d Dialect, call ipc.Call) bool {
	q, settled := d.Ask(call)
	return settled == nil && (!d.NamesHosts() || q.AllHosts || ours(t).Allows(q.Target))
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s (%v)", file, got, want, err)
	}
}

// Readers share the token's bytes; rendering must not write behind them.
func TestRenderingLeavesTheTokenAlone(t *testing.T) {
	for name, d := range all {
		for _, call := range calls[name] {
			tok := sample()
			whole := tok.Value[:cap(tok.Value)]
			before := string(whole)
			a := answer(t, d, call, tok, nil)
			for i := range a.Stdout {
				a.Stdout[i] = 'x'
			}
			if string(whole) != before {
				t.Errorf("%s wrote into the token: %q", name, whole)
			}
		}
	}
}

func TestAnEraseTellsWhatWasRefused(t *testing.T) {
	for _, stdin := range []string{"protocol=https\nhost=x\npassword=tok\n", "protocol=https\nhost=x\nauthtype=Bearer\ncredential=tok\n"} {
		if q, settled := git.Ask(in(stdin, "erase")); settled == nil || string(q.Rejected) != "tok" {
			t.Errorf("%q: %q", stdin, q.Rejected)
		}
	}
	if q, _ := git.Ask(in("protocol=https\nhost=x\n", "erase")); q.Rejected != nil {
		t.Errorf("%q", q.Rejected)
	}
}

func TestKubectlsMargin(t *testing.T) {
	at := time.Now()
	for life, want := range map[time.Duration]time.Duration{time.Hour: time.Minute, 20 * time.Second: 2 * time.Second} {
		if got := margin(Token{IssuedAt: at, Expiry: at.Add(life)}); got != want {
			t.Errorf("%v: %v, want %v", life, got, want)
		}
	}
}
