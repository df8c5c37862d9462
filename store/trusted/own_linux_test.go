package trusted_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bloq-agent/store/trusted"
)

// newOpenPlace is a place that every user can reach.
func newOpenPlace(t *testing.T) place {
	t.Helper()
	p := newPlace(t)
	must(t, errors.Join(os.Chmod(filepath.Dir(p.tmp), 0o755), os.Chmod(p.dir, 0o755)))
	return p
}

// Who may have written decides, and not the mode alone: where a directory on the
// way is closed to others, nobody has. DIR, FILE and HOME stand for paths.
func TestWhatOthersMayWriteIsOursIfTheyNeverReachIt(t *testing.T) {
	needsRoot(t)
	const open = "FILE can be written by others (chmod go-w FILE)"
	for name, tt := range map[string]struct {
		spoil func(p place) error
		want  string
	}{
		"as it should be":                 {func(p place) error { return nil }, ""},
		"in reach of others":              {func(p place) error { return os.Chmod(p.file, 0o602) }, open},
		"in reach of a group":             {func(p place) error { return group(p.file, 0o660) }, open},
		"in reach of a list":              {func(p place) error { return errors.Join(os.Chmod(p.file, 0o600), setACL(p.file)) }, open},
		"of our own group":                {func(p place) error { return os.Chmod(p.file, 0o660) }, ""},
		"in a closed directory":           {func(p place) error { return errors.Join(os.Chmod(p.file, 0o666), os.Chmod(p.dir, 0o700)) }, ""},
		"below a closed directory":        {func(p place) error { return errors.Join(os.Chmod(p.file, 0o666), os.Chmod(p.home, 0o700)) }, ""},
		"in one that is closed but to us": {func(p place) error { return errors.Join(os.Chmod(p.file, 0o666), os.Chmod(p.dir, 0o710)) }, ""},
		"in one that a group enters":      {func(p place) error { return errors.Join(os.Chmod(p.file, 0o666), group(p.dir, 0o710)) }, open},
		"in one that a list lets in": {func(p place) error {
			return errors.Join(os.Chmod(p.file, 0o666), setACL(p.dir), os.Chmod(p.dir, 0o770))
		}, open},
		"in one that others enter": {func(p place) error { return errors.Join(os.Chmod(p.file, 0o666), os.Chmod(p.dir, 0o701)) }, open},
		"by another name": {func(p place) error {
			return errors.Join(os.Chmod(p.file, 0o666), os.Chmod(p.dir, 0o700), os.Link(p.file, p.home+"/other"))
		}, open},
		"behind a link in a closed directory": {func(p place) error {
			return errors.Join(os.Rename(p.dir, p.tmp+"/to"), os.Mkdir(p.home+"/closed", 0o700), os.Symlink("../to", p.dir), os.Chmod(p.tmp+"/to/file", 0o666))
		}, open},
		"another user's": {func(p place) error { return os.Chown(p.file, stranger, 0) }, "FILE belongs to another user, 65533 (chown root FILE)"},
		"a link":         {link, "FILE is not a regular file"},
		"a directory":    {func(p place) error { return errors.Join(os.Remove(p.file), os.Mkdir(p.file, 0o700)) }, "FILE is not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newOpenPlace(t)
			must(t, tt.spoil(p))
			got := ""
			if err := trusted.CheckOwn(p.file, 0); err != nil {
				got = err.Error()
			}
			if want := strings.ReplaceAll(tt.want, "FILE", p.file); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestADirectoryOfOursMayBeALink(t *testing.T) {
	needsRoot(t)
	for name, tt := range map[string]struct {
		spoil func(p place) error
		want  string
	}{
		"a link":                 {func(p place) error { return nil }, ""},
		"to one that is open":    {func(p place) error { return os.Chmod(p.dir, 0o777) }, "LINK can be written by others (chmod go-w LINK)"},
		"to one of another user": {func(p place) error { return os.Chown(p.dir, stranger, 0) }, "LINK belongs to another user, 65533 (chown root LINK)"},
		"to a file":              {func(p place) error { return errors.Join(os.RemoveAll(p.dir), os.WriteFile(p.dir, nil, 0o600)) }, "LINK is not a directory"},
		"to a closed one": {func(p place) error {
			return errors.Join(os.Chmod(p.dir, 0o777), os.Chmod(p.home, 0o700))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newOpenPlace(t)
			must(t, os.Symlink("home/dir", p.tmp+"/link"))
			must(t, tt.spoil(p))
			got := ""
			if err := trusted.CheckOwn(p.tmp+"/link", fs.ModeDir); err != nil {
				got = err.Error()
			}
			if want := strings.ReplaceAll(tt.want, "LINK", p.tmp+"/link"); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}
