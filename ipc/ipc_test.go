package ipc

import (
	"math"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSocketPath(t *testing.T) {
	env := func(kv ...string) func(string) string {
		return func(k string) string {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == k {
					return kv[i+1]
				}
			}
			return ""
		}
	}
	for _, tt := range []struct {
		flag string
		env  func(string) string
		want string
	}{
		{"/a.sock", env("BLOQ_AGENT_SOCK", "/b.sock", "XDG_RUNTIME_DIR", "/run/x"), "/a.sock"},
		{"", env("BLOQ_AGENT_SOCK", "/b.sock", "XDG_RUNTIME_DIR", "/run/x"), "/b.sock"},
		{"", env("XDG_RUNTIME_DIR", "/run/x"), "/run/x/bloq-agent/agent.sock"},
		{"", env(), "/run/user/1000/bloq-agent/agent.sock"},
	} {
		if got, err := SocketPath(tt.flag, tt.env, "1000"); got != tt.want || err != nil {
			t.Errorf("SocketPath(%q) = %q, %v; want %q", tt.flag, got, err, tt.want)
		}
	}
	for n, want := range map[int]error{MaxPath: nil, MaxPath + 1: ErrPathTooLong} {
		if _, err := SocketPath("/"+strings.Repeat("x", n-1), env(), "0"); err != want {
			t.Errorf("a path of %d bytes: %v, want %v", n, err, want)
		}
	}
}

func TestValidProfile(t *testing.T) {
	for name, want := range map[string]bool{
		"default": true, "a": true, "0-_z": true, strings.Repeat("a", 32): true,
		"": false, strings.Repeat("a", 33): false, "-a": false, "_a": false, "A": false,
		"a/b": false, "a b": false, "..": false, "ä": false, "a\n": false,
	} {
		if ValidProfile(name) != want {
			t.Errorf("ValidProfile(%q) = %v", name, !want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "5m": 5 * time.Minute, "1h30m": 90 * time.Minute, "20": 20 * time.Second, "0": 0,
		"1500ms":      1500 * time.Millisecond,
		"99999999999": math.MaxInt64, "99999999999999999999": math.MaxInt64, "9999999h1s": math.MaxInt64, "1h99999999999999999999.5ms": math.MaxInt64,
	} {
		if got, err := ParseDuration(s); got != want || err != nil {
			t.Errorf("ParseDuration(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-5s", "5x", "abc", "1e3", "5 m", "+-1s", "-99999999999999999999", "-99999999999999999999s", "99999999999999999999x", "99999999999999999999h5"} {
		if d, err := ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%q) = %v", s, d)
		}
	}
}

func FuzzParseDurationTakesWhatFormatDurationWrites(f *testing.F) {
	f.Add("90s")
	f.Add("1h30m")
	f.Add("20")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if d < 0 {
			t.Fatalf("%q is %v", s, d)
		}
		again, err := ParseDuration(FormatDuration(d))
		if err != nil || again != d.Truncate(time.Millisecond) {
			t.Fatalf("%v came back as %v, %v", d, again, err)
		}
	})
}

func TestCallRoundTrip(t *testing.T) {
	for _, c := range []Call{
		{},
		{Args: []string{"get"}, Stdin: []byte("protocol=https\nhost=x\n\n")},
		{Args: []string{"", "a,b:c", "\x00\xff"}, Env: []string{"A=1", "B="}, Stdin: []byte(strings.Repeat("x", 70_000))},
	} {
		got, err := ParseCall(AppendCall(nil, c))
		if err != nil {
			t.Fatalf("%v", err)
		}
		if !reflect.DeepEqual(got.Args, c.Args) || !reflect.DeepEqual(got.Env, c.Env) || string(got.Stdin) != string(c.Stdin) {
			t.Errorf("%q came back as %q", c, got)
		}
	}
	c := Call{Env: []string{"AB=1", "A=2", "A=3"}}
	if c.Lookup("A") != "2" || c.Lookup("B") != "" || c.Lookup("AB") != "1" {
		t.Error("Lookup finds another variable")
	}
}

// A request that is cut anywhere must not look whole.
func TestACutCallIsRefused(t *testing.T) {
	whole := AppendCall(nil, Call{Args: []string{"get", "x"}, Env: []string{"A=1"}, Stdin: []byte("in")})
	for i := range whole {
		if c, err := ParseCall(whole[:i]); err == nil {
			t.Errorf("the first %d bytes are taken for %q", i, c)
		}
	}
	for _, s := range []string{"i0:,x", "a1:x,", "i00:,", "i-1:,", "i+0:,", "i 0:,", "i:,", "x0:,i0:,", "i99999999999999999999:,", "e1:x,a1:x,i0:,", "i2:x,"} {
		if c, err := ParseCall([]byte(s)); err == nil {
			t.Errorf("%q is taken for %q", s, c)
		}
	}
}

func FuzzParseCallTakesOnlyWhatAppendCallWrites(f *testing.F) {
	f.Add([]byte("i0:,"))
	f.Add([]byte("a3:get,e3:A=1,i2:in,"))
	f.Add([]byte("a1:x,i99:"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCall(b)
		if err != nil {
			return
		}
		if again := AppendCall(nil, c); string(again) != string(b) {
			t.Fatalf("%q was read, %q is how it is written", b, again)
		}
	})
}

func TestEveryCodeHasItsStatusAndExit(t *testing.T) {
	for code, want := range map[Code][2]int{
		CodeInternal: {500, 1}, CodeBadRequest: {400, 2}, CodeUnknownProfile: {404, 2},
		CodeNeedsLogin: {403, 3}, CodeLocked: {403, 3}, CodeUnavailable: {503, 5}, CodeConfiguration: {503, 5},
	} {
		if got := [2]int{code.Status(), code.Exit()}; got != want {
			t.Errorf("%s: status and exit %v, want %v", code, got, want)
		}
	}
}

func TestShellWord(t *testing.T) {
	for s, want := range map[string]string{
		"": "''", "a": "a", "/run/a-b_c.sock": "/run/a-b_c.sock", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'", "ä": "'ä'", "~": "'~'",
		"--user=a@b.example": "--user=a@b.example", "*": "'*'",
		"/a\x1b[0m'\\": `$'/a\033[0m\047\134'`, "\u202eä": `$'\342\200\256\303\244'`, "\n": `$'\012'`,
	} {
		if got := ShellWord(s); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// Octal is what bash makes the same bytes of.
func TestAShellReadsAWordThatATerminalMustNot(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	for _, s := range []string{"\x1b]0;x\a", "a\nb", "it's\x1b\\", "\u202e\u0085\xff 7"} {
		out, err := exec.Command(bash, "-c", "printf %s "+ShellWord(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q is read as %q, %v", s, out, err)
		}
	}
}
