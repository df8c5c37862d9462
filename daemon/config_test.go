package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigTellsEveryMistakeAtOnce(t *testing.T) {
	const text = `log_level = "loud"
store = 7
tls_ca_file = "relative.pem"
frobnicate = true
landlock = "yes"

[profile.work]
enviroment = "prod"
environment = "moon"
token_url = "http://bloq.example"   # plain
keys_url = ""

[profile."Bad Name"]
login_url = "https://u:hunter2@x.example"

[profil.x]
`
	_, err := ParseConfig("c.toml", []byte(text))
	if err == nil {
		t.Fatal("taken")
	}
	got := strings.Split(err.Error(), "\n")
	want := []string{
		`c.toml:1: log_level: "loud" is none of debug, info, warn, error`,
		`c.toml:2: store: must be a string`,
		`c.toml:3: tls_ca_file: must be an absolute path`,
		`c.toml:4: unknown key "frobnicate"`,
		`c.toml:5: landlock: must be true or false`,
		`c.toml:8: unknown key "profile.work.enviroment"`,
		`c.toml:9: environment: "moon" is none of prod, staging, local`,
		`c.toml:10: token_url: "http://bloq.example" is plain http: only https, or http to 127.0.0.1 or [::1]`,
		`c.toml:11: keys_url: must not be empty`,
		`c.toml:13: no profile can be called "Bad Name" (a-z, 0-9, _ and -, at most 32)`,
		`c.toml:14: login_url: must not hold a user or password`,
		`c.toml:16: unknown key "profil.x"`,
	}
	for i, line := range want {
		if i >= len(got) || got[i] != line {
			t.Fatalf("got\n%s\nwant\n%s", err, strings.Join(want, "\n"))
		}
	}
	if len(got) != len(want) {
		t.Errorf("more than that:\n%s", err)
	}
}

func TestConfigSyntaxErrorNamesItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"log_level = \"info\"\nstore = \n":        "c.toml:2: ",
		"[profile.a]\n[profile.a]\n":              "c.toml:2: ",
		"profile = 3\n":                           "c.toml:1: profile: must be a table",
		"profile.a.environment = 'x'\n":           "c.toml:1: environment: ",
		"'log_level' = 'x'\n":                     "c.toml:1: log_level: ",
		"log_level = \"info\"\nlog_level = \"x\"": "c.toml:2: ",
	} {
		if _, err := ParseConfig("c.toml", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s…", text, err, want)
		}
	}
}

func TestConfigThatIsGood(t *testing.T) {
	c, err := ParseConfig("c.toml", []byte(`
log_level = "debug"
store = "memory"
landlock = false
[profile.default]
environment = "staging"
token_url = "https://t.example/auth/token"
[profile.other]
accounts_url = "http://127.0.0.1:4000"
`))
	if err != nil {
		t.Fatal(err)
	}
	if none, err := ParseConfig("c.toml", nil); err != nil || none.NoLandlock || !c.NoLandlock {
		t.Errorf("landlock is on unless the file says false: %v", err)
	}
	e := c.endpoints(storeProfile("default"))
	if e.Login != "https://accounts.bloqclouddev.com/auth" || e.Token != "https://t.example/auth/token" {
		t.Errorf("%+v", e)
	}
	if e := c.endpoints(storeProfile("other")); e.Keys != "http://127.0.0.1:4000/users/me/client-keys" {
		t.Errorf("%+v", e)
	}
	if e := c.endpoints(storeProfile("third")); e.Token != "https://recorded.example/token" {
		t.Errorf("a profile that the file does not name: %+v", e)
	}
}

func TestConfigFilesThatAreNotThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.toml")
	if _, _, err := LoadConfig(path); err != nil {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadConfig(path); err != nil {
		t.Errorf("an empty file: %v", err)
	}
	if _, _, err := LoadConfig(filepath.Dir(path)); err == nil {
		t.Error("a directory was taken for a file")
	}
}

func TestCAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	config := []byte("tls_ca_file = \"" + path + "\"\n")
	if _, err := ParseConfig("c.toml", config); err == nil || !strings.Contains(err.Error(), "c.toml:1: tls_ca_file") {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ParseConfig("c.toml", config); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Errorf("garbage: %v", err)
	}
}

func TestXDGPaths(t *testing.T) {
	env := map[string]string{"HOME": "/home/u"}
	getenv := func(k string) string { return env[k] }
	if got, err := ConfigPath(getenv); err != nil || got != "/home/u/.config/bloq-agent/config.toml" {
		t.Error(got, err)
	}
	env["XDG_CONFIG_HOME"], env["XDG_STATE_HOME"] = "/c", "relative"
	if got, err := ConfigPath(getenv); err != nil || got != "/c/bloq-agent/config.toml" {
		t.Error(got, err)
	}
	if got, err := StateDir(getenv); err != nil || got != "/home/u/.local/state/bloq-agent" {
		t.Errorf("a relative path must be ignored: %s, %v", got, err)
	}
}

// Without HOME it is the system's word, and without that an error: never the
// directory that somebody happens to stand in.
func TestXDGPathsWithoutAHome(t *testing.T) {
	defer func(old func() string) { passwdHome = old }(passwdHome)
	for _, home := range []string{"", "relative"} {
		getenv := func(k string) string { return map[string]string{"HOME": home}[k] }
		passwdHome = func() string { return "/home/p" }
		if got, err := StateDir(getenv); err != nil || got != "/home/p/.local/state/bloq-agent" {
			t.Errorf("HOME %q: %q, %v", home, got, err)
		}
		for _, nowhere := range []string{"", "also/relative"} {
			passwdHome = func() string { return nowhere }
			for variable, f := range map[string]func(func(string) string) (string, error){
				"XDG_CONFIG_HOME": ConfigPath, "XDG_STATE_HOME": StateDir, "XDG_DATA_HOME": KeyDir,
			} {
				if got, err := f(getenv); got != "" || err == nil || err.Error() != "neither HOME nor "+variable+" is set" {
					t.Errorf("%q, %v", got, err)
				}
			}
		}
	}
}

// What is wrong with a certificate's file is told as any other mistake, and what
// mends it can still be found.
func TestACertificateThatOthersCouldHaveWritten(t *testing.T) {
	pem := filepath.Join(t.TempDir(), "ca.pem")
	do(t, os.WriteFile(pem, nil, 0o600))
	do(t, os.Chmod(pem, 0o646))
	text := fmt.Sprintf("store = \"file\"\ntls_ca_file = %q\n", pem)
	_, err := ParseConfig("c.toml", []byte(text))
	if want := fmt.Sprintf("c.toml:2: tls_ca_file: %s can be written by others (chmod o-w %s)", pem, pem); err == nil || err.Error() != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
	if p := notTaken(err); p.Hint != "chmod o-w "+pem || p.Detail != err.Error() {
		t.Errorf("%+v", p)
	}
	_, err = ParseConfig("c.toml", []byte(text+"log_level = 7\n"))
	if p := notTaken(err); p.Hint != "bloq-agent config check" || strings.Contains(p.Detail, "\n") {
		t.Errorf("of two mistakes the hint mends one: %+v", p)
	}
}

func FuzzParseConfigNamesTheFileInEveryMistake(f *testing.F) {
	f.Add("log_level = \"info\"\n[profile.a]\ntoken_url = \"https://x.example\"\n")
	f.Add("[profile.a]\nx = 1\n")
	f.Add("profile = {a = {environment = \"x\"}}")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConfig("c.toml", []byte(text))
		if err != nil {
			for _, line := range strings.Split(err.Error(), "\n") {
				if !strings.HasPrefix(line, "c.toml:") {
					t.Fatalf("%q: mistake %q", text, line)
				}
			}
			return
		}
		for name, p := range c.Profiles {
			if err := p.Endpoints.Check(); err != nil {
				t.Fatalf("%q: profile %q: %v", text, name, err)
			}
		}
	})
}
