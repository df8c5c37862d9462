package dialect

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"bloq-agent/ipc"
)

// asked runs one dialect on whatever a fuzzer makes of its calls. The token may
// only come out if the question was for a server of ours.
func asked(f *testing.F, name string, check func(t *testing.T, call ipc.Call, a Answer)) {
	d := all[name]
	for _, c := range calls[name] {
		f.Add(strings.Join(c.Args, "\x00"), strings.Join(c.Env, "\x00"), c.Stdin)
	}
	f.Fuzz(func(t *testing.T, args, env string, stdin []byte) {
		call := ipc.Call{Stdin: stdin}
		if args != "" {
			call.Args = strings.Split(args, "\x00")
		}
		if env != "" {
			call.Env = strings.Split(env, "\x00")
		}
		for _, problem := range []*ipc.Problem{nil, {Code: ipc.CodeNeedsLogin, Detail: "work: needs login", Hint: "bloq-agent login"}} {
			a := answer(t, d, call, sample(), problem)
			if problem != nil && bytes.Contains(a.Stdout, sample().Value) {
				t.Error("a token where there is a problem")
			}
			if bytes.Contains(a.Stderr, sample().Value) {
				t.Error("a token on stderr")
			}
			if !oneKindOfEnd(a.Stderr) {
				t.Errorf("what a tool sent goes to the terminal as it is: %q", a.Stderr)
			}
			if !oneKindOfEnd(a.Stdout) {
				t.Errorf("a control character of the request is in the answer: %q", a.Stdout)
			}
			if a.Exit < 0 || a.Exit > 125 {
				t.Errorf("exit %d", a.Exit)
			}
			check(t, call, a)
		}
	})
}

func oneLineOfJSON(t *testing.T, _ ipc.Call, a Answer) {
	if len(a.Stdout) == 0 {
		return
	}
	if !json.Valid(a.Stdout) || bytes.Count(a.Stdout, []byte("\n")) != 1 || a.Stdout[len(a.Stdout)-1] != '\n' {
		t.Errorf("%q", a.Stdout)
	}
}

func FuzzGitAnswersGit(f *testing.F) {
	asked(f, "git", func(t *testing.T, call ipc.Call, a Answer) {
		out, ok := parseGit(a.Stdout)
		if !ok || len(a.Stdout) > 0 && a.Stdout[len(a.Stdout)-1] != '\n' {
			t.Errorf("%q", a.Stdout)
		}
		for key, values := range out {
			known := []string{"capability[]", "authtype", "credential", "ephemeral", "username", "password", "password_expiry_utc", "quit"}
			if !slices.Contains(known, key) || len(values) != 1 || bytes.Count(a.Stdout, []byte("\n")) != len(out) {
				t.Errorf("a line of the request's making: %q", a.Stdout)
			}
		}
		_, erased := parseGit(call.Stdin)
		if len(out) > 0 && (!erased || len(call.Args) != 1 || call.Args[0] != "get") {
			t.Errorf("%q without a get", a.Stdout)
		}
	})
}

func FuzzDockerAnswersOneLine(f *testing.F) {
	asked(f, "docker", func(t *testing.T, _ ipc.Call, a Answer) {
		if bytes.Count(a.Stdout, []byte("\n")) > 1 {
			t.Errorf("%q", a.Stdout)
		}
		if a.Exit == 0 && len(a.Stdout) > 0 && !json.Valid(a.Stdout) {
			t.Errorf("%q", a.Stdout)
		}
	})
}

func FuzzCargoAnswersOneLineOfJSON(f *testing.F)     { asked(f, "cargo", oneLineOfJSON) }
func FuzzTerraformAnswersOneLineOfJSON(f *testing.F) { asked(f, "terraform", oneLineOfJSON) }
func FuzzBazelAnswersOneLineOfJSON(f *testing.F)     { asked(f, "bazel", oneLineOfJSON) }
func FuzzKubectlAnswersOneLineOfJSON(f *testing.F)   { asked(f, "kubectl", oneLineOfJSON) }

func FuzzGoauthAnswersWholeSets(f *testing.F) {
	asked(f, "goauth", func(t *testing.T, _ ipc.Call, a Answer) {
		if len(a.Stdout) > 0 && (!bytes.HasPrefix(a.Stdout, []byte("https://")) && !bytes.HasPrefix(a.Stdout, []byte("http://")) ||
			!bytes.HasSuffix(a.Stdout, []byte("\n\n")) || bytes.Count(a.Stdout, []byte("\n\n")) != 2) {
			t.Errorf("%q", a.Stdout)
		}
	})
}

func FuzzAShellReadsOneWord(f *testing.F) {
	for _, s := range hostile {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q := shellQuote(b)
		// Between the quotes of '…' nothing is special but the quote itself.
		inner := bytes.ReplaceAll(q[1:len(q)-1], []byte(`'\''`), nil)
		if q[0] != '\'' || q[len(q)-1] != '\'' || bytes.IndexByte(inner, '\'') >= 0 {
			t.Errorf("%q", q)
		}
	})
}

func FuzzCurlReadsOneValue(f *testing.F) {
	for _, s := range hostile {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for i, q := 0, curlQuote(b); i < len(q); i++ {
			switch q[i] {
			case '\\':
				i++
			case '"', '\n', '\r':
				t.Fatalf("%q ends early", q)
			}
		}
	})
}

var hostile = []string{"eyJ.x.y", `a'b`, `a"b\`, "$(touch x)", "`id`", "a\nb", "$HOME", "a;b&c|d", "''", `\'`, "-n", "", "~", "!!", "a\tb", "\u00e9"}

// What a shell and curl make of it, for real.
func TestHostileValuesComeOutAsTheyWent(t *testing.T) {
	for _, s := range hostile {
		cmd := exec.Command("sh", "-c", string(asEnv(Token{Value: []byte(s)}))+"\nprintf %s. \"$BLOQ_ACCESS_TOKEN\"")
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != s+"." {
			t.Errorf("sh reads %q as %q (%v)", s, out, err)
		}
	}
}
