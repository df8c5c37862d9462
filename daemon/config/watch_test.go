package config

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

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
	changed, err := Watch(t.Context(), path)
	do(t, err)
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
