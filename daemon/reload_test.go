package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bloq-agent/daemon/config"
	"bloq-agent/refresher"

	"github.com/rs/zerolog"
)

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A request is answered with the one mistake and what mends it; of several, with
// the first and the command that shows all.
func TestTheHintMendsAllThatIsWrong(t *testing.T) {
	pem := filepath.Join(t.TempDir(), "ca.pem")
	do(t, os.WriteFile(pem, nil, 0o600))
	do(t, os.Chmod(pem, 0o646))
	text := fmt.Sprintf("tls_ca_file = %q\n", pem)
	_, err := config.Parse("c.toml", []byte(text))
	if p := notTaken(err); p.Hint != "chmod o-w "+pem || p.Detail != err.Error() {
		t.Errorf("%+v", p)
	}
	_, err = config.Parse("c.toml", []byte(text+"log_level = \"loud\"\n"))
	if p := notTaken(err); p.Hint != "bloq-agent config check" || strings.Contains(p.Detail, "\n") {
		t.Errorf("of two mistakes the hint mends one: %+v", p)
	}
}

// A file that is empty is about to be written: it must not reset everything to
// the defaults.
func TestAnEmptyFileIsASaveInProgress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	do(t, os.WriteFile(path, []byte("store = \"memory\"\n"), 0o600))
	d := &Daemon{options: Options{ConfigPath: path}, log: zerolog.Nop(), outside: &Outside{Clock: refresher.RuntimeClock()}}
	d.reload()
	do(t, os.WriteFile(path, nil, 0o600))
	d.reloadChanged()
	if got := d.config.get().Store; got != "memory" {
		t.Errorf("store %q after an empty file", got)
	}
	if d.recheck() == nil {
		t.Error("nobody looks whether it stays empty")
	}
	loaded := d.config.current.Load().at
	do(t, os.WriteFile(path, []byte("store = \"memory\"\n"), 0o600))
	d.reloadChanged()
	if d.config.current.Load().at != loaded || d.recheck() != nil {
		t.Error("the same file was loaded again, or will be")
	}
	do(t, os.WriteFile(path, []byte("store = \"keyring\"\n"), 0o600))
	d.reloadChanged()
	if got := d.config.get().Store; got != "keyring" {
		t.Errorf("store %q", got)
	}
	do(t, os.WriteFile(path, nil, 0o600))
	d.reloadChanged()
	d.reloadMended() // as keepConfig does when recheck fires
	if got := d.config.get().Store; got != "" || d.recheck() != nil {
		t.Errorf("store %q of a file that stays empty", got)
	}
	do(t, os.WriteFile(path, []byte("store = \"keyring\"\n"), 0o600))
	d.reloadChanged()
	do(t, os.Remove(path))
	d.reloadChanged()
	if got := d.config.get().Store; got != "" {
		t.Errorf("store %q without a file", got)
	}
}

// A hint to restart must work where it is read.
func TestTheHintToRestart(t *testing.T) {
	const self, byHand = 7, "stop bloq-agent (kill 7) and start it again"
	for name, tt := range map[string]struct {
		env  map[string]string
		want string
	}{
		"by hand":                      {nil, byHand},
		"the user's manager":           {map[string]string{"INVOCATION_ID": "x", "MANAGERPID": "1", "SYSTEMD_EXEC_PID": "7"}, "systemctl --user restart bloq-agent"},
		"before systemd 248":           {map[string]string{"INVOCATION_ID": "x", "MANAGERPID": "1"}, "systemctl --user restart bloq-agent"},
		"the system's":                 {map[string]string{"INVOCATION_ID": "x", "SYSTEMD_EXEC_PID": "7", "USER": "ann"}, "sudo systemctl restart bloq-agent@ann"},
		"a terminal that is a service": {map[string]string{"INVOCATION_ID": "x", "MANAGERPID": "1", "SYSTEMD_EXEC_PID": "5"}, byHand},
	} {
		if got := restartCommand(func(name string) string { return tt.env[name] }, self); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
