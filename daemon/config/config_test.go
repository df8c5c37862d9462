package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bloq-agent/store"
	"bloq-agent/store/trusted"
)

func storeProfile(name string) store.Profile {
	return store.Profile{Name: name, TokenURL: "https://recorded.example/token", NodesURL: "https://recorded.example/nodes"}
}

func TestConfigTellsEveryMistakeAtOnce(t *testing.T) {
	const text = `log_level = "loud"
store = "the cellar"
tls_ca_file = "relative.pem"
frobnicate = true

[profile.work]
enviroment = "prod"
environment = "moon"
token_url = "http://bloq.example"   # plain
keys_url = ""
hosts = ["ok.example", "https://x.example/path"]

[profile."Bad Name"]
login_url = "https://u:hunter2@x.example"

[profil.x]
`
	_, err := Parse("c.toml", []byte(text))
	if err == nil {
		t.Fatal("taken")
	}
	got := strings.Split(err.Error(), "\n")
	want := []string{
		`c.toml:4: unknown key "frobnicate"`,
		`c.toml:7: unknown key "profile.work.enviroment"`,
		`c.toml:16: unknown key "profil.x"`,
		`c.toml: log_level: "loud" is none of debug, info, warn, error`,
		`c.toml: store: "the cellar" is none of keyring, file, memory`,
		`c.toml: tls_ca_file: must be an absolute path`,
		`c.toml: profile."Bad Name": no profile can be called that (a-z, 0-9, _ and -, at most 32)`,
		`c.toml: profile."Bad Name".login_url: must not hold a user or password`,
		`c.toml: profile.work.environment: "moon" is none of prod, staging, local`,
		`c.toml: profile.work.token_url: "http://bloq.example" is plain http: only https, or http to 127.0.0.1 or [::1]`,
		`c.toml: profile.work.keys_url: must not be empty`,
		`c.toml: profile.work.hosts: "https://x.example/path" is a host, with or without a port, and no URL`,
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
		"log_level = \"info\"\nlog_level = \"x\"": "c.toml:2: ",
	} {
		if _, err := Parse("c.toml", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s…", text, err, want)
		}
	}
}

// The types of Go are nothing to a reader.
func TestConfigValueOfAWrongTypeNamesItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"store = 7":                                  "store: expected string, found integer",
		"store = {a = 1}":                            "store: expected string, found inline table",
		"[store]\na = 1":                             "store: expected string, found table",
		"[[store]]\na = 1":                           "store: expected string, found array table",
		"landlock = 'yes'":                           "landlock: expected true or false, found string",
		"[landlock]\na = 1":                          "landlock: expected true or false, found table",
		"profile = 3":                                "profile: expected table, found integer",
		"[[profile]]":                                "profile: expected table, found array table",
		"[[profile.a]]":                              "profile.a: expected table, found array table",
		"profile.a = 3":                              "profile.a: expected table, found integer",
		"profile.a.sink = 3":                         "profile.a.sink: expected table, found integer",
		"profile.a.sink = [3]":                       "profile.a.sink: expected table, found integer",
		"profile.a.environment = 1979-05-27":         "profile.a.environment: expected string, found local date",
		"profile.a.hosts = 'x'":                      "profile.a.hosts: expected list of strings, found string",
		"profile.a.hosts = ['x', 7]":                 "profile.a.hosts: expected string, found integer",
		"[profile.a.hosts]\na = 1":                   "profile.a.hosts: expected string, found table",
		"[[profile.a.hosts]]\na = 1":                 "profile.a.hosts: expected string, found table",
		"profile.a.sink = [{path = 1.5}]":            "profile.a.sink: expected string, found float",
		"[profile.a.sink.path]\na = 1":               "profile.a.sink.path: expected string, found table",
		"[profile.a.environment]\na = 1":             "profile.a.environment: expected string, found table",
		"profile.a.sink = [{command = ['a', true]}]": "profile.a.sink: expected string, found boolean",
	} {
		if _, err := Parse("c.toml", []byte("\n"+text)); err == nil || err.Error() != "c.toml:2: "+want {
			t.Errorf("%q\ngot  %v\nwant %s", text, err, want)
		}
	}
}

func TestConfigThatIsGood(t *testing.T) {
	c, err := Parse("c.toml", []byte(`
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
	if none, err := Parse("c.toml", nil); err != nil || none.NoLandlock || !c.NoLandlock {
		t.Errorf("landlock is on unless the file says false: %v", err)
	}
	e := c.Endpoints(storeProfile("default"))
	if e.Login != "https://accounts.bloqclouddev.com/auth" || e.Token != "https://t.example/auth/token" {
		t.Errorf("%+v", e)
	}
	if e := c.Endpoints(storeProfile("other")); e.Keys != "http://127.0.0.1:4000/users/me/client-keys" {
		t.Errorf("%+v", e)
	}
	if e := c.Endpoints(storeProfile("third")); e.Token != "https://recorded.example/token" {
		t.Errorf("a profile that the file does not name: %+v", e)
	}
}

// A list in the file counts, and an empty one gives the token to no host. Without
// one it is the host of the Nodes API.
func TestHostsOfAProfile(t *testing.T) {
	c, err := Parse("c.toml", []byte("[profile.none]\nhosts = []\n[profile.one]\nhosts = [\"git.example\"]\n[profile.silent]\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"none": "", "one": "https://git.example", "silent": "https://recorded.example", "third": "https://recorded.example"} {
		if got := strings.Join(c.Hosts(storeProfile(name)).Origins(), " "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestConfigFilesThatAreNotThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.toml")
	if _, _, err := Load(path); err != nil {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(path); err != nil {
		t.Errorf("an empty file: %v", err)
	}
	if _, _, err := Load(filepath.Dir(path)); err == nil {
		t.Error("a directory was taken for a file")
	}
}

func TestCAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	config := []byte("tls_ca_file = \"" + path + "\"\n")
	if _, err := Parse("c.toml", config); err == nil || !strings.Contains(err.Error(), "c.toml: tls_ca_file: ") {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse("c.toml", config); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Errorf("garbage: %v", err)
	}
}

func TestXDGPaths(t *testing.T) {
	env := map[string]string{"HOME": "/home/u"}
	getenv := func(k string) string { return env[k] }
	if got, err := Path(getenv); err != nil || got != "/home/u/.config/bloq-agent/config.toml" {
		t.Error(got, err)
	}
	env["XDG_CONFIG_HOME"], env["XDG_STATE_HOME"] = "/c", "relative"
	if got, err := Path(getenv); err != nil || got != "/c/bloq-agent/config.toml" {
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
				"XDG_CONFIG_HOME": Path, "XDG_STATE_HOME": StateDir, "XDG_DATA_HOME": KeyDir,
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
	_, err := Parse("c.toml", []byte(text))
	if want := fmt.Sprintf("c.toml: tls_ca_file: %s can be written by others (chmod o-w %s)", pem, pem); err == nil || err.Error() != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
	if mend := trusted.Mend(err); mend != "chmod o-w "+pem {
		t.Errorf("%q mends it", mend)
	}
}

func FuzzParseNamesTheFileInEveryMistake(f *testing.F) {
	f.Add("log_level = \"info\"\n[profile.a]\ntoken_url = \"https://x.example\"\n")
	f.Add("[profile.a]\nx = 1\n")
	f.Add("profile = {a = {environment = \"x\"}}")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("c.toml", []byte(text))
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
