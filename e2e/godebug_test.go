package e2e

import (
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/accounts/sandbox"
)

// printing are the settings of GODEBUG that make a program of Go print, or that
// change what a crash prints.
var printing = []string{
	"http2debug=2", "netdns=go+2", // of the library
	"gctrace=1", "gcpacertrace=1", "inittrace=1", "scavtrace=1", "schedtrace=200", "scheddetail=1", // of the runtime
	"tracebackancestors=5", "tracebacklabels=1", "decoratemappings=1", "dontfreezetheworld=1", "profstackdepth=1024", "allocfreetrace=1", "memprofilerate=1",
}

// quiet are the other settings with such names.
var quiet = []string{
	"tracefpunwindoff", "traceadvanceperiod", "tracecheckstackownership", "traceallocfree", // of traces that a program itself writes
	"netedns0", // of DNS, and prints nothing
}

// No variable that Go documents makes our programs print a secret. The endpoint
// speaks HTTP/2 with whoever offers it.
func TestNoVariableOfGoPrintsASecret(t *testing.T) {
	keylog := filepath.Join(t.TempDir(), "keys")
	for name, env := range map[string][]string{
		"http2debug": {"GODEBUG=http2debug=2"},
		"all":        {"GODEBUG=" + strings.Join(printing, ",") + ",http2client=1", "GOTRACEBACK=crash", "SSLKEYLOGFILE=" + keylog, "GOCOVERDIR=/nonexistent", "GORACE=verbosity=2"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Config{})
			w.url = "https://" + w.secure("localhost")
			if speaks := protocolOf(t, w.url); speaks != "HTTP/2.0" {
				t.Fatalf("the endpoint speaks %s", speaks)
			}
			w.env = append(w.env, env...)
			w.start("--store", "file")
			var printed strings.Builder
			run := func(stdin, program string, args ...string) string {
				r := w.must(stdin, program, args...)
				printed.WriteString(r.stderr)
				return r.stdout
			}
			run(w.pass+"\n", "bloq-agent", "login", "--accounts-url", w.url, "--user", w.user, "--password-stdin", "--keep-client-secret")
			run("", "bloq-agent", "refresh")
			run("", "bloq-agent", "status")
			token := run("", "bloq-token")
			if got := run("", "bloq-agent", "exec", "--", "sh", "-c", `printf %s "$BLOQ_ACCESS_TOKEN"`); got != strings.TrimSpace(token) {
				t.Errorf("exec gave %d bytes of a token", len(got))
			}
			run("", "bloq-agent", "keys", "create")
			run("", "bloq-agent", "keys", "list")
			// What a crash prints; GOTRACEBACK=crash has every stack and register.
			must(t, w.daemon.Process.Signal(syscall.SIGQUIT))
			_ = w.daemon.Wait()
			secrets := w.secrets.all()
			if len(secrets) < 5 || !w.log.contains(0, "SIGQUIT") {
				t.Fatalf("%d secrets, log: %s", len(secrets), w.log.String())
			}
			if name == "all" && (!strings.Contains(printed.String(), "init runtime") || !w.log.contains(0, "SCHED ")) {
				t.Error("the variables had no effect")
			}
			// The world's own search, at the end, has the log and the files.
			for secret, what := range secrets {
				for _, part := range parts(secret) {
					if strings.Contains(printed.String(), part) {
						t.Errorf("stderr of a program holds the %s", what)
					}
				}
			}
			if _, err := os.Stat(keylog); err == nil {
				t.Error("the keys of TLS connections were written to a file")
			}
		})
	}
}

// protocolOf is what a server speaks with a client that offers HTTP/2.
func protocolOf(t *testing.T, url string) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	a, err := c.Get(url)
	must(t, err)
	_ = a.Body.Close()
	c.CloseIdleConnections()
	return a.Proto
}

// A later Go may have another setting that prints. Its name, like those of today,
// will have "debug", "trace" or "dns" in it, and be in the runtime's documentation
// or in the table of settings.
func TestEverySettingOfGoThatPrintsIsTried(t *testing.T) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	root := strings.TrimSpace(string(out))
	documented, err := os.ReadFile(root + "/src/runtime/extern.go")
	must(t, err)
	table, err := os.ReadFile(root + "/src/internal/godebugs/table.go")
	must(t, err)
	known := " " + strings.Join(quiet, " ") + " "
	for _, s := range printing {
		name, _, _ := strings.Cut(s, "=")
		known += name + " "
	}
	names := regexp.MustCompile(`(?m)^\t([a-z0-9]+): |\{Name: "([a-z0-9]+)"`).FindAllStringSubmatch(string(documented)+string(table), -1)
	if len(names) < 60 {
		t.Errorf("found only %d settings", len(names))
	}
	for _, m := range names {
		name := m[1] + m[2]
		if regexp.MustCompile(`debug|trace|dns`).MatchString(name) && !strings.Contains(known, " "+name+" ") {
			t.Errorf("GODEBUG=%s is not tried", name)
		}
	}
}

// Only a transport of our own making is known to speak no HTTP/2.
func TestNoProgramUsesTheDefaultTransport(t *testing.T) {
	forbidden := regexp.MustCompile(`http\.(Default(Client|Transport)|(Get|Head|Post|PostForm)\(|Client\{\})`)
	n := 0
	must(t, filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		n++
		b, err := os.ReadFile(path)
		for _, line := range strings.Split(string(b), "\n") {
			code, _, _ := strings.Cut(line, "//")
			if use := forbidden.FindString(code); use != "" {
				t.Errorf("%s uses %s", path, use)
			}
		}
		return err
	}))
	if n < 100 {
		t.Errorf("looked at %d files", n)
	}
}
