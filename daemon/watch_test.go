package daemon

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// watched makes a daemon that only watches path.
func watched(t *testing.T, path string) <-chan struct{} {
	t.Helper()
	d := &Daemon{options: Options{ConfigPath: path}, log: zerolog.Nop()}
	return d.watch(t.Context())
}

func mustSee(t *testing.T, changed <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatalf("not seen: %s", what)
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWatchSeesAFileInDirectoriesThatAreMadeLater(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "config.toml")
	changed := watched(t, path)
	do(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
	mustSee(t, changed, "the first directory")
	do(t, os.Mkdir(filepath.Join(dir, "a", "b"), 0o700))
	mustSee(t, changed, "the second directory")
	do(t, os.WriteFile(path, []byte("x"), 0o600))
	mustSee(t, changed, "the file")
	do(t, os.WriteFile(path+".new", []byte("y"), 0o600))
	do(t, os.Rename(path+".new", path))
	mustSee(t, changed, "a replacement by rename")
	do(t, os.WriteFile(path, []byte("z"), 0o600))
	mustSee(t, changed, "a write after the replacement")
	do(t, os.RemoveAll(filepath.Join(dir, "a")))
	mustSee(t, changed, "the removal")
	do(t, os.MkdirAll(filepath.Dir(path), 0o700))
	mustSee(t, changed, "the directories again")
	do(t, os.WriteFile(path, []byte("x"), 0o600))
	mustSee(t, changed, "the file again")
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
