package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"bloq-agent/daemon/config"
	"bloq-agent/daemon/dialect"
	"bloq-agent/daemon/profile"
	"bloq-agent/ipc"
	"bloq-agent/store"

	"github.com/rs/zerolog"
)

// poison is what no terminal may be sent as it is, with a line that systemd would
// take for a message of its own.
const poison = "MARK\x1b]0;owned\a\u009b31m\u202etxt\u0085\r\nMAINPID=1\tx\x7f\x9b"

func oneLine(t *testing.T, what, s string) {
	t.Helper()
	if !strings.Contains(s, "MARK") {
		t.Errorf("%s: nothing is shown, so this proves nothing: %q", what, s)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%s: %q", what, s)
	}
}

// What people read of the daemon by way of others is harmless as well: its log on
// a terminal and in the journal, its status in systemctl, what tools show.
func TestNothingFromOutsideMovesTheCursor(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		path := filepath.Join(t.TempDir(), "log")
		f, err := os.Create(path)
		do(t, err)
		log, drain, err := NewLogger(f, format)
		do(t, err)
		log.Warn().Str("field", poison).AnErr("err", errors.New(poison)).Bytes("bytes", []byte(poison)).Strs("list", []string{poison}).Msg(poison)
		drain()
		do(t, f.Close())
		b, err := os.ReadFile(path)
		do(t, err)
		if strings.Count(string(b), "MARK") != 5 {
			t.Errorf("%s: not everything is shown: %s", format, b)
		}
		oneLine(t, format, strings.TrimSuffix(string(b), "\n"))
	}
	_, err := config.Parse(poison, []byte("\"MARK\\u001b]0;x\\u0007\\nINJECTED\\u202e\" = 1"))
	oneLine(t, "configuration", err.Error())

	problem := &ipc.Problem{Code: ipc.CodeUnavailable, Detail: poison, Hint: poison}
	for _, name := range []string{"token", "git", "docker", "cargo", "terraform", "goauth", "bazel", "kubectl"} {
		d, ok := dialect.Lookup(name)
		if !ok {
			t.Fatal(name)
		}
		a := d.Fail(dialect.Question{}, problem)
		for line := range strings.Lines(string(a.Stderr) + string(a.Stdout)) {
			oneLine(t, name, strings.TrimSuffix(line, "\n"))
		}
	}
}

// systemd reads a notification line by line, and believes each.
func TestAStatusIsOneLineToSystemd(t *testing.T) {
	dir := t.TempDir()
	records, err := store.OpenProfiles(dir)
	do(t, err)
	r := store.Profile{Name: "work", ID: store.NewID(), Store: "file"}
	do(t, records.Put(r))
	do(t, records.Close())
	do(t, store.NewFile(dir, store.NewKey(dir, "")).Save(t.Context(), r.ID, store.Item{RefreshToken: store.NewSecret([]byte("x"))}))
	// The message names the directory in which the key is not.
	key := store.NewKey(filepath.Join(dir, poison), "")
	d, err := New(Options{
		StateDir: dir, ConfigPath: filepath.Join(dir, "config.toml"), Log: zerolog.Nop(),
		Stores: profile.Stores{Keyring: store.NewKeyring(), Memory: store.NewMemory(), File: store.NewFile(dir, key)},
	})
	do(t, err)
	t.Cleanup(d.Close)
	d.state.start(true)
	oneLine(t, "status", statusLine(d))
}
