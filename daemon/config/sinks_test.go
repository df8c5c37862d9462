package config

import (
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

func sinkEnv(t *testing.T) {
	t.Helper()
	for k, v := range map[string]string{
		"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7",
		"XDG_STATE_HOME": "", "XDG_DATA_HOME": "", "XDG_CONFIG_HOME": "",
	} {
		t.Setenv(k, v)
	}
}

func TestSinkMistakes(t *testing.T) {
	sinkEnv(t)
	for body, want := range map[string]string{
		`format = "token"`:                       `c.toml: profile.a.sink[0].path: is missing`,
		`path = 3`:                               `c.toml:3: profile.a.sink.path: expected string, found integer`,
		`path = ""`:                              `c.toml: profile.a.sink[0].path: must not be empty`,
		`path = "x"`:                             `c.toml: profile.a.sink[0].path: must be absolute, or begin with %t or %h`,
		`path = "./%t/x"`:                        `c.toml: profile.a.sink[0].path: must be absolute, or begin with %t or %h`,
		`path = "/x/"`:                           `c.toml: profile.a.sink[0].path: names a directory`,
		`path = "/x/.."`:                         `c.toml: profile.a.sink[0].path: names a directory`,
		`path = "/"`:                             `c.toml: profile.a.sink[0].path: names a directory`,
		`path = "%u/x"`:                          `c.toml: profile.a.sink[0].path: "%u/x": after % comes t, h or %`,
		`path = "/x%"`:                           `c.toml: profile.a.sink[0].path: "/x%": after % comes t, h or %`,
		`path = "/x\u0000"`:                      `c.toml: profile.a.sink[0].path: must not hold control characters`,
		`path = "/x\ny"`:                         `c.toml: profile.a.sink[0].path: must not hold control characters`,
		`path = "%t/bloq-agent/x"`:               `c.toml: profile.a.sink[0].path: /run/user/7/bloq-agent is a directory of bloq-agent itself`,
		`path = "/run/user/7/a/../bloq-agent/x"`: `c.toml: profile.a.sink[0].path: /run/user/7/bloq-agent is a directory of bloq-agent itself`,
		`path = "%h/.local/state/bloq-agent/x"`:  `c.toml: profile.a.sink[0].path: /home/u/.local/state/bloq-agent is a directory of bloq-agent itself`,
		`path = "%h/.local/share/bloq-agent/x"`:  `c.toml: profile.a.sink[0].path: /home/u/.local/share/bloq-agent is a directory of bloq-agent itself`,
		`path = "%h/.config/bloq-agent/a/x"`:     `c.toml: profile.a.sink[0].path: /home/u/.config/bloq-agent is a directory of bloq-agent itself`,
		"path = \"/x\"\nmode = 0o600":            `c.toml: profile.a.sink[0].mode: must be an octal string such as "0600"`,
		"path = \"/x\"\nmode = \"rw\"":           `c.toml: profile.a.sink[0].mode: must be an octal string such as "0600"`,
		"path = \"/x\"\nmode = \"60\"":           `c.toml: profile.a.sink[0].mode: must be an octal string such as "0600"`,
		"path = \"/x\"\nmode = \"0800\"":         `c.toml: profile.a.sink[0].mode: must be an octal string such as "0600"`,
		"path = \"/x\"\nmode = \"0o600\"":        `c.toml: profile.a.sink[0].mode: must be an octal string such as "0600"`,
		"path = \"/x\"\nmode = \"\"":             `c.toml: profile.a.sink[0].mode: must be an octal string such as "0600"`,
		"path = \"/x\"\nmode = \"0666\"":         `c.toml: profile.a.sink[0].mode: "0666" gives more than reading: at most 0644`,
		"path = \"/x\"\nmode = \"0620\"":         `c.toml: profile.a.sink[0].mode: "0620" gives more than reading: at most 0644`,
		"path = \"/x\"\nmode = \"0700\"":         `c.toml: profile.a.sink[0].mode: "0700" gives more than reading: at most 0644`,
		"path = \"/x\"\nmode = \"4600\"":         `c.toml: profile.a.sink[0].mode: "4600" gives more than reading: at most 0644`,
		"path = \"/x\"\nmode = \"0244\"":         `c.toml: profile.a.sink[0].mode: "0244": its owner must be able to read it`,
		"path = \"/x\"\nformat = \"yaml\"":       `c.toml: profile.a.sink[0].format: "yaml" is none of token, header, env, json`,
		"path = \"/x\"\nformat = 1":              `c.toml:4: profile.a.sink.format: expected string, found integer`,
		"path = \"/x\"\ncommand = \"true\"":      `c.toml:4: profile.a.sink.command: expected list of strings, found string`,
		"path = \"/x\"\ncommand = []":            `c.toml: profile.a.sink[0].command: must be a list of strings: ["program", "argument"]`,
		"path = \"/x\"\ncommand = [\"a\", 1]":    `c.toml:4: profile.a.sink.command: expected string, found integer`,
		"path = \"/x\"\ncommand = [\"\\u0000\"]": `c.toml: profile.a.sink[0].command: must be a list of strings: ["program", "argument"]`,
		"path = \"/x\"\ncommand = [\"\"]":        `c.toml: profile.a.sink[0].command: "" is neither an absolute path nor a name to look for in $PATH`,
		"path = \"/x\"\ncommand = [\"./a\"]":     `c.toml: profile.a.sink[0].command: "./a" is neither an absolute path nor a name to look for in $PATH`,
		"path = \"/x\"\nowner = \"u\"":           `c.toml:4: unknown key "profile.a.sink.owner"`,
	} {
		for _, header := range []string{"[[profile.a.sink]]", `[[ profile."a".sink ]] # one`, "[profile.a.sink]"} {
			_, err := Parse("c.toml", []byte("\n"+header+"\n"+body+"\n"))
			if err == nil || err.Error() != want {
				t.Errorf("%s %s\ngot  %v\nwant %s", header, body, err, want)
			}
		}
	}
}

// The second of several sinks, and those in inline tables, are told apart too.
func TestSinkMistakesNameTheSink(t *testing.T) {
	sinkEnv(t)
	for text, want := range map[string]string{
		"[[profile.a.sink]]\npath=\"/x\"\n[[profile.b.sink]]\npath=\"/y\"\n[[profile.a.sink]]\npath=\"y\"\n": "c.toml: profile.a.sink[1].path: must be abs",
		"[[profile.a.sink]]\npath=\"/x\"\n[[profile.a.sink]]\n":                                              "c.toml: profile.a.sink[1].path: is missing",
		"[profile.a]\nsink = [{path=\"/x\"}, {path=\"x\"}]\n":                                                "c.toml: profile.a.sink[1].path: must be abs",
		"profile.a.sink = [{path=\"x\"}]\n":                                                                  "c.toml: profile.a.sink[0].path: must be abs",
		"[profile.\"A B\"]\nsink = [{path=\"/x\"}, {path=\"x\"}]\n":                                          "c.toml: profile.\"A B\": no profile can be called that (a-z, 0-9, _ and -, at most 32)\nc.toml: profile.\"A B\".sink[1].path: must be abs",
	} {
		if _, err := Parse("c.toml", []byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s…", text, err, want)
		}
	}
}

func TestTwoSinksOnOnePath(t *testing.T) {
	sinkEnv(t)
	const text = `[[profile.b.sink]]
path = "%t/x"
[[profile.a.sink]]
path = "/run/user/7/./x"
[[profile.a.sink]]
path = "/run/user/7/y"
[[profile.a.sink]]
path = "%t//y"
`
	_, err := Parse("c.toml", []byte(text))
	want := `c.toml: profile.a.sink[2].path: /run/user/7/y is the path of another sink too, profile.a.sink[1]
c.toml: profile.b.sink[0].path: /run/user/7/x is the path of another sink too, profile.a.sink[0]`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestSinksThatAreGood(t *testing.T) {
	sinkEnv(t)
	c, err := Parse("c.toml", []byte(`
[[profile.a.sink]]
path = "%t/prometheus/bloq.token"
[[profile.a.sink]]
path = "%h/100%%/x"
mode = "0640"
format = "env"
command = ["systemctl", "--user", "reload", "x.service"]
[[profile.a.sink]]
path = "/srv/bloq-agent/x"
mode = "400"
format = "json"
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range c.Profiles["a"].Sinks {
		got = append(got, fmt.Sprintf("%s %s %04o %s %q", s.Profile, s.Path, s.Mode, s.Format, s.Command))
	}
	want := []string{
		`a /run/user/7/prometheus/bloq.token 0600 token []`,
		`a /home/u/100%/x 0640 env ["systemctl" "--user" "reload" "x.service"]`,
		`a /srv/bloq-agent/x 0400 json []`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	t.Setenv("XDG_RUNTIME_DIR", "relative")
	if path, err := expand("%t/x", os.Getenv); path != fmt.Sprintf("/run/user/%d/x", os.Getuid()) || err != nil {
		t.Errorf("without a runtime directory: %s, %v", path, err)
	}
	t.Setenv("HOME", "")
	defer func(old func() string) { passwdHome = old }(passwdHome)
	passwdHome = func() string { return "" }
	if path, err := expand("%h/x", os.Getenv); err == nil {
		t.Errorf("without a home: %s", path)
	}
}

func FuzzSinksThatAreTakenAreAbsoluteAndForTheirOwner(f *testing.F) {
	f.Add("/x/y", "0600", "a")
	f.Add("%t/%h/%%", "640", "/bin/true")
	f.Add("/x/../..//y", "7777", "./x")
	f.Fuzz(func(t *testing.T, path, mode, command string) {
		m := &mistakes{file: "c.toml", taken: map[string]string{}}
		s := m.sink("a", "profile.a.sink[0]", sinkTable{Path: &path, Mode: mode, Command: []string{command}})
		if len(m.list) > 0 {
			return
		}
		if !strings.HasPrefix(s.Path, "/") || strings.HasSuffix(s.Path, "/") || strings.Contains(s.Path, "/../") || strings.Contains(s.Path, "//") {
			t.Errorf("path %q became %q", path, s.Path)
		}
		if s.Mode&^0o644 != 0 || s.Mode.Type() != fs.FileMode(0) {
			t.Errorf("mode %q became %v", mode, s.Mode)
		}
	})
}
