package config

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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

// A file is changed at each place of the way that its links make, and the watch
// sees each change: afterwards too, and once more.
func TestWatchSeesEachDirectoryOfTheWay(t *testing.T) {
	for name, change := range map[string]func(home string) error{
		"the target is edited":   func(h string) error { return os.WriteFile(h+"/dotfiles/real.toml", []byte("y"), 0o600) },
		"the target is replaced": func(h string) error { return replace(h+"/dotfiles/real.toml", "y") },
		"a link in the middle leads elsewhere": func(h string) error {
			return errors.Join(os.Symlink("other.toml", h+"/links/new"), os.Rename(h+"/links/new", h+"/links/middle"))
		},
		"the first link becomes a file": func(h string) error { return replace(h+"/.config/bloq-agent/config.toml", "y") },
		"a linked directory becomes a real one": func(h string) error {
			return errors.Join(os.Remove(h+"/links"), exec.Command("cp", "-a", h+"/elsewhere", h+"/links").Run())
		},
		"a linked directory leads elsewhere": func(h string) error {
			return errors.Join(os.Mkdir(h+"/empty", 0o700), os.Remove(h+"/links"), os.Symlink("empty", h+"/links"))
		},
		"a directory is moved away and copied back": func(h string) error {
			return errors.Join(os.Rename(h+"/.config", h+"/.old"), exec.Command("cp", "-a", h+"/.old", h+"/.config").Run(), os.RemoveAll(h+"/.old"))
		},
		"a directory above is": func(h string) error {
			return errors.Join(os.Rename(h, h+"2"), exec.Command("cp", "-a", h+"2", h).Run())
		},
		"the target's directory is": func(h string) error {
			return errors.Join(os.Rename(h+"/dotfiles", h+"/x"), exec.Command("cp", "-a", h+"/x", h+"/dotfiles").Run())
		},
		"the mode of a directory": func(h string) error { return os.Chmod(h+"/dotfiles", 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir() + "/home"
			path := home + "/.config/bloq-agent/config.toml"
			for _, dir := range []string{"/.config/bloq-agent", "/dotfiles", "/elsewhere"} {
				do(t, os.MkdirAll(home+dir, 0o700))
			}
			do(t, errors.Join(os.WriteFile(home+"/dotfiles/real.toml", []byte("x"), 0o600), os.WriteFile(home+"/elsewhere/other.toml", []byte("z"), 0o600)))
			do(t, errors.Join(os.Symlink("elsewhere", home+"/links"), os.Symlink("../../links/middle", path), os.Symlink("../dotfiles/real.toml", home+"/links/middle")))
			changed, err := Watch(t.Context(), path)
			do(t, err)
			do(t, change(home))
			mustSee(t, changed, name)
			at, err := filepath.EvalSymlinks(path)
			if err != nil {
				at = home + "/empty/middle"
			}
			for _, what := range []string{"an edit after it", "another"} {
				do(t, os.WriteFile(at, []byte(what), 0o600))
				mustSee(t, changed, what)
			}
		})
	}
}

func replace(path, content string) error {
	return errors.Join(os.WriteFile(path+".new", []byte(content), 0o600), os.Rename(path+".new", path))
}

// A program that moves directories to and fro leaves no watch behind.
func TestWatchesDoNotPileUp(t *testing.T) {
	home := t.TempDir() + "/home"
	path := home + "/a/config.toml"
	do(t, os.MkdirAll(home+"/a", 0o700))
	changed, err := Watch(t.Context(), path)
	do(t, err)
	for i := range 3 {
		do(t, errors.Join(os.Rename(home, home+strconv.Itoa(i)), os.MkdirAll(home+"/a", 0o700)))
		mustSee(t, changed, "it")
	}
	if n, want := watches(t), strings.Count(path, "/"); n != want {
		t.Errorf("%d watches on a way of %d directories", n, want)
	}
}

// watches are those that the kernel holds for us.
func watches(t *testing.T) (n int) {
	t.Helper()
	list, err := filepath.Glob("/proc/self/fdinfo/*")
	do(t, err)
	for _, path := range list {
		b, _ := os.ReadFile(path) // one of them was the list's own
		n += strings.Count(string(b), "inotify wd:")
	}
	return n
}

// Compare sees what Watch cannot, when it is asked, and nothing where nothing is.
func TestCompareSeesWhatHasChanged(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/config.toml"
	asked := make(chan struct{})
	changed := Compare(t.Context(), path, asked)
	long := time.Unix(1_000_000_000, 0)
	asked <- struct{}{}
	mustSee(t, changed, "that nobody had looked before")
	for _, step := range []struct {
		what   string
		change func() error
	}{
		{"that it is there", func() error { return os.WriteFile(path, []byte("x"), 0o600) }},
		{"its size", func() error { return os.WriteFile(path, []byte("longer"), 0o600) }},
		{"its inode", func() error { return replace(path, "longer") }},
		{"its time", func() error { return os.Chtimes(path, long, long) }},
		{"its mode", func() error { return os.Chmod(path, 0o640) }},
		{"its directory", func() error {
			return errors.Join(os.Rename(dir, dir+"2"), exec.Command("cp", "-a", dir+"2", dir).Run())
		}},
		{"that it is gone", func() error { return os.Remove(path) }},
	} {
		do(t, step.change())
		select {
		case asked <- struct{}{}:
			mustSee(t, changed, step.what)
		case <-changed: // the last look of the step before was late
		}
		for range 2 { // the second is taken when the first look is over
			select {
			case asked <- struct{}{}:
			case <-changed:
				t.Errorf("%s: seen again, and nothing has changed", step.what)
			}
		}
	}
}
