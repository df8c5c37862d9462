package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bloq-agent/daemon/config"

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
	d := &Daemon{options: Options{ConfigPath: path}, log: zerolog.Nop()}
	d.reload()
	do(t, os.WriteFile(path, nil, 0o600))
	d.reloadChanged()
	if got := d.config.get().Store; got != "memory" {
		t.Errorf("store %q after an empty file", got)
	}
	loaded := d.config.current.Load().at
	do(t, os.WriteFile(path, []byte("store = \"memory\"\n"), 0o600))
	d.reloadChanged()
	if d.config.current.Load().at != loaded {
		t.Error("the same file was loaded again")
	}
	do(t, os.WriteFile(path, []byte("store = \"keyring\"\n"), 0o600))
	d.reloadChanged()
	if got := d.config.get().Store; got != "keyring" {
		t.Errorf("store %q", got)
	}
	do(t, os.Remove(path))
	d.reloadChanged()
	if got := d.config.get().Store; got != "" {
		t.Errorf("store %q without a file", got)
	}
}
