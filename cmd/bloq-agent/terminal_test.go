package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

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
