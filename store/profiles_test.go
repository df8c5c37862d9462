package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func profileNamed(name string) Profile {
	return Profile{
		Name: name, ID: NewID(), Environment: "prod", LoginURL: "https://a/login", TokenURL: "https://a/token",
		KeysURL: "https://a/keys", NodesURL: "https://a", Store: "keyring", ClientID: "c", Pending: []PendingKey{{ClientID: "d", Since: time.Unix(1_700_000_000, 0).UTC()}},
		RefreshExpiry: time.Unix(1_800_000_000, 0).UTC(),
	}
}

func TestProfilesSurviveTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	p, err := OpenProfiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	z, a := profileNamed("z"), profileNamed("a")
	for _, x := range []Profile{z, a, z} {
		if err := p.Put(x); err != nil {
			t.Fatal(err)
		}
	}
	do(t, p.Close())
	again, err := OpenProfiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.List(); !reflect.DeepEqual(got, []Profile{a, z}) {
		t.Errorf("%+v", got)
	}
	if got, ok := again.Lookup("z"); !ok || !reflect.DeepEqual(got, z) {
		t.Errorf("%+v, %v", got, ok)
	}
	if err := again.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if _, ok := again.Lookup("a"); ok {
		t.Error("removed, and still there")
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Two daemons on one state directory would spend the same refresh tokens.
func TestOnlyOneCanOpenAStateDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	p, err := OpenProfiles(dir)
	do(t, err)
	if _, err := OpenProfiles(dir); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v", err)
	}
	do(t, p.Amend("nobody", func(r *Profile) { r.Rotates = true }))
	do(t, p.Close())
	again, err := OpenProfiles(dir)
	do(t, err)
	do(t, again.Close())
}

func TestProfilesArePrivateUnderAnyUmask(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "state")
	p, err := OpenProfiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Put(profileNamed("a")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, profilesFile): 0o600} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, want %v", path, fi.Mode().Perm(), want)
		}
	}
}

func TestProfilesThatOthersCanReadAreClosed(t *testing.T) {
	dir := t.TempDir()
	do(t, os.Chmod(dir, 0o700))
	path := filepath.Join(dir, profilesFile)
	do(t, os.WriteFile(path, []byte(`{"version":1,"profiles":[]}`), 0o600))
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o600} {
		do(t, os.Chmod(path, mode))
		p, err := OpenProfiles(dir)
		do(t, err)
		fi, err := os.Stat(path)
		do(t, err)
		told := strings.Contains(p.Note(), path) && strings.Contains(p.Note(), fmt.Sprintf("mode %04o", mode))
		if fi.Mode().Perm() != 0o600 || told != (mode != 0o600) {
			t.Errorf("%v became %v; note %q", mode, fi.Mode().Perm(), p.Note())
		}
		do(t, p.Close())
	}
}

func TestBadProfilesAreRefusedAndLeftAlone(t *testing.T) {
	id := NewID()
	for _, content := range []string{
		"", "{", "null", "[]", `{"version":3,"profiles":[]}`, `{"version":1,"profiles":[]} x`,
		`{"version":1,"profiles":[],"more":1}`,
		`{"version":1,"profiles":[{"name":"a","id":"` + id + `","colour":"red"}]}`,
		`{"version":1,"profiles":[{"name":"../a","id":"` + id + `"}]}`,
		`{"version":1,"profiles":[{"name":"a","id":"short"}]}`,
		`{"version":1,"profiles":[{"name":"A","id":"` + id + `"}]}`,
		`{"version":1,"profiles":[{"name":"","id":"` + id + `"}]}`,
		`{"version":1,"profiles":[null]}`,
		`{"version":1,"profiles":[{"name":"a"}]}`,
		`{"version":1,"profiles":[{"name":"a","id":"` + strings.ToUpper(id) + `"}]}`,
		`{"version":1,"profiles":[{"name":"a","id":"probe-` + id + `"}]}`,
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, profilesFile)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenProfiles(dir); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", content, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != content {
			t.Errorf("%q was changed to %q (%v)", content, b, err)
		}
	}
}

// openDirectory is a new directory that every user can reach.
func openDirectory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	do(t, errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755)))
	return dir
}

func TestFilesThatAreNotOursToTrust(t *testing.T) {
	for name, make := range map[string]func(dir, path string) error{
		"symlink": func(dir, path string) error {
			target := filepath.Join(dir, "target")
			if err := os.WriteFile(target, []byte(`{"version":1,"profiles":[]}`), 0o600); err != nil {
				return err
			}
			return os.Symlink(target, path)
		},
		"FIFO":      func(_, path string) error { return syscall.Mkfifo(path, 0o600) },
		"directory": func(_, path string) error { return os.Mkdir(path, 0o700) },
		"writable": func(dir, path string) error {
			return errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, []byte(`{"version":1,"profiles":[]}`), 0o600), os.Chmod(path, 0o602))
		},
		"open directory": func(dir, _ string) error { return os.Chmod(dir, 0o777) },
	} {
		dir := filepath.Join(openDirectory(t), "state")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := make(dir, filepath.Join(dir, profilesFile)); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenProfiles(dir); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// A copy or a careless chmod lets others write what is ours. Where nobody else could
// have come, the daemon sets that right and says so.
func TestAModeThatNobodyCouldUseIsSetRight(t *testing.T) {
	for _, tt := range []struct {
		dir, file os.FileMode
		closed    bool // a directory above
		want      string
	}{
		{0o700, 0o666, false, "FILE was open to others, mode 0666; it is 0600 now"},
		{0o700, 0o620, false, "FILE was open to others, mode 0620; it is 0600 now"},
		{0o777, 0o600, true, "DIR was open to others, mode 0777; it is 0700 now"},
		{0o777, 0o666, true, "DIR was open to others, mode 0777; it is 0700 now; FILE was open to others, mode 0666; it is 0600 now"},
		{0o755, 0o600, true, ""},
		{0o777, 0o600, false, "refused: DIR can be written by others (chmod go-w DIR)"},
		{0o755, 0o606, false, "refused: FILE can be written by others (chmod o-w FILE)"},
	} {
		above := openDirectory(t)
		dir := filepath.Join(above, "state")
		path := filepath.Join(dir, profilesFile)
		do(t, errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(path, []byte(`{"version":2,"profiles":[]}`), 0o600)))
		do(t, errors.Join(os.Chmod(path, tt.file), os.Chmod(dir, tt.dir)))
		if tt.closed {
			do(t, os.Chmod(above, 0o700))
		}
		p, err := OpenProfiles(dir)
		got := ""
		if err == nil {
			got = p.Note()
			do(t, p.Close())
		} else {
			got = "refused: " + err.Error()
		}
		if want := strings.NewReplacer("FILE", path, "DIR", dir).Replace(tt.want); got != want {
			t.Errorf("%o, %o:\ngot  %s\nwant %s", tt.dir, tt.file, got, want)
		}
	}
}

// Whoever goes back to an older release is told so, and not that the file is
// damaged, whatever the newer one has written.
func TestAFileOfANewerVersionIsNamedAsSuch(t *testing.T) {
	for _, content := range []string{
		`{"version":3,"profiles":[]}`, `{"version":3,"colour":"red"}`, `{"profiles":{"a":1},"version":3}`, `{"version":3} and more`,
	} {
		_, err := parseProfiles([]byte(content))
		if err == nil || err.Error() != "it was written by a newer bloq-agent: its version is 3, and this one reads up to 2; install that one" {
			t.Errorf("%s: %v", content, err)
		}
	}
}

// The state directory can be a link to another disk. It is held, checked and
// written there; where the link leads elsewhere later, nothing is.
func TestAStateDirectoryThatIsALink(t *testing.T) {
	at := t.TempDir()
	link, real := filepath.Join(at, "state"), filepath.Join(at, "disk")
	do(t, errors.Join(os.Mkdir(real, 0o700), os.Mkdir(real+"2", 0o700), os.Symlink("disk", link)))
	p, err := OpenProfiles(link)
	do(t, err)
	for _, dir := range []string{link, real} {
		if _, err := OpenProfiles(dir); !errors.Is(err, ErrInUse) {
			t.Errorf("%s can be had twice: %v", dir, err)
		}
	}
	do(t, errors.Join(p.Put(profileNamed("a")), p.Dir().Check()))
	if fi, err := os.Lstat(filepath.Join(real, profilesFile)); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	do(t, errors.Join(os.Remove(link), os.Symlink("disk2", link)))
	var moved *MovedError
	if err := p.Put(profileNamed("b")); !errors.As(err, &moved) {
		t.Errorf("written where the link leads now: %v", err)
	}
	do(t, p.Close())
	do(t, errors.Join(os.Remove(link), os.Symlink("missing", link)))
	if _, err := OpenProfiles(link); err == nil || err.Error() != link+" is a link to a directory that is not there" {
		t.Errorf("a link that leads nowhere: %v", err)
	}
}

// Whatever follows the end, the file is not the one that was written.
func TestProfilesThatGoOnAfterTheirEndAreRefused(t *testing.T) {
	const whole = `{"version":1,"profiles":[]}`
	for _, rest := range []string{" ]", "}", "\n}\n", "]]", ",", ":", "x", "\x00", "1", `""`, whole, `{"version":`} {
		if _, err := parseProfiles([]byte(whole + rest)); err == nil || err.Error() != "there is something after its end" {
			t.Errorf("%q: %v", rest, err)
		}
	}
	if _, err := parseProfiles([]byte(whole + " \n\t\n")); err != nil {
		t.Errorf("spaces: %v", err)
	}
}

// Two records of one id would share a login, two of one name the place in which
// it is looked up. Neither is read, and neither is written.
func TestNoTwoProfilesShareAnIDOrAName(t *testing.T) {
	one, other := NewID(), NewID()
	for _, tt := range []struct{ name, id, want string }{
		{"b", one, `profiles "a" and "b" have the same id, so they would share one login; take one of them out of the file`},
		{"a", other, `profile "a" is there twice`},
		{"a", one, `profile "a" is there twice`},
	} {
		dir := filepath.Join(t.TempDir(), "state")
		do(t, os.Mkdir(dir, 0o700))
		path := filepath.Join(dir, profilesFile)
		content := fmt.Sprintf(`{"version":1,"profiles":[{"name":"a","id":"%s"},{"name":"x","id":"%s"},{"name":"%s","id":"%s"}]}`, one, NewID(), tt.name, tt.id)
		do(t, os.WriteFile(path, []byte(content), 0o600))
		if _, err := OpenProfiles(dir); err == nil || err.Error() != path+": "+tt.want {
			t.Errorf("%v", err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != content {
			t.Errorf("it was changed to %q (%v)", b, err)
		}
	}
	p, err := OpenProfiles(filepath.Join(t.TempDir(), "state"))
	do(t, err)
	do(t, p.Put(Profile{Name: "a", ID: one}))
	do(t, p.Put(Profile{Name: "a", ID: one, ClientID: "again"}))
	do(t, p.Put(Profile{Name: "a", ID: other}))
	if err := p.Put(Profile{Name: "b", ID: other}); err == nil || len(p.List()) != 1 {
		t.Errorf("a second profile of the same id was put beside it: %v", p.List())
	}
	if p.Put(Profile{Name: "b", ID: probePrefix + NewID()}) == nil {
		t.Error("a probe's id was taken for a profile's")
	}
}

// Run as root, or after a move to another machine, the directory or the file can
// be somebody else's, whatever its mode.
func TestTheStateIsOursAlone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to give a file away: sudo go test ./store")
	}
	for _, name := range []string{".", profilesFile} {
		dir := filepath.Join(t.TempDir(), "state")
		do(t, os.Mkdir(dir, 0o700))
		do(t, os.WriteFile(filepath.Join(dir, profilesFile), []byte(`{"version":1,"profiles":[]}`), 0o600))
		path := filepath.Join(dir, name)
		do(t, os.Chown(path, 65534, -1))
		if _, err := OpenProfiles(dir); err == nil || !strings.HasPrefix(err.Error(), path+" belongs to another user") {
			t.Errorf("%s of another user: %v", name, err)
		}
		do(t, os.Chown(path, 0, -1))
		p, err := OpenProfiles(dir)
		do(t, err)
		do(t, p.Close())
	}
}

func TestAFailedPutChangesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	p, err := OpenProfiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Put(profileNamed("a")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if p.Put(profileNamed("b")) == nil || p.Remove("a") == nil {
		t.Error("written into a directory that is gone")
	}
	if got := p.List(); len(got) != 1 || got[0].Name != "a" {
		t.Errorf("%+v", got)
	}
	if p.Put(Profile{Name: "Bad", ID: NewID()}) == nil || p.Put(Profile{Name: "ok", ID: "x"}) == nil {
		t.Error("a bad profile was taken")
	}
}

func TestLeftoversOfACrashAreRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	left, other := filepath.Join(dir, ".bloq-123.tmp"), filepath.Join(dir, "notes.tmp")
	for _, path := range []string{left, other} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenProfiles(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("the temporary file is still there")
	}
	if _, err := os.Stat(other); err != nil {
		t.Error("a file of somebody else was removed")
	}
}

func TestProfilesTakeManyWriters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	p, err := OpenProfiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := p.Put(profileNamed(fmt.Sprint("p", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	do(t, p.Close())
	again, err := OpenProfiles(dir)
	if err != nil || len(again.List()) != 20 {
		t.Errorf("%d profiles, %v", len(again.List()), err)
	}
}

// A time that JSON cannot write in UTC would make every status an error.
func TestTimesAreOfYearsThatJSONCanWrite(t *testing.T) {
	for at, want := range map[string]string{
		"9999-12-31T23:59:59-12:00": "9999-12-31T23:59:59Z", "0000-01-01T00:00:00+12:00": "0001-01-01T00:00:00Z",
		"2026-11-24T12:00:00+01:00": "2026-11-24T11:00:00Z",
	} {
		list, err := parseProfiles([]byte(`{"version":2,"profiles":[{"name":"a","id":"00112233445566778899aabbccddeeff","refresh_token_expires_at":"` + at + `"}]}`))
		do(t, err)
		var there time.Time
		do(t, there.UnmarshalText([]byte(at)))
		b, err := encodeItem(Item{Origin: "https://bloq.example", AccountExpiry: there})
		do(t, err)
		item, err := decodeItem(b)
		do(t, err)
		for name, got := range map[string]time.Time{"profiles.json": list[0].RefreshExpiry, "item": item.AccountExpiry} {
			if text, err := got.UTC().MarshalText(); err != nil || string(text) != want {
				t.Errorf("%s: %s is read as %s, %v; want %s", name, at, text, err, want)
			}
		}
	}
}

func FuzzParseProfilesTakesOnlyWhatCanBePutBack(f *testing.F) {
	f.Add([]byte(`{"version":1,"profiles":[{"name":"a","id":"00112233445566778899aabbccddeeff"}]}`))
	f.Add([]byte(`{"version":1,"profiles":[{"name":"a","id":"00112233445566778899aabbccddeeff"},{"name":"b","id":"00112233445566778899aabbccddeeff"}]}`))
	f.Add([]byte(`{"version":1,"profiles":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseProfiles(b)
		if err != nil {
			return
		}
		ids := map[string]bool{}
		for _, x := range list {
			if !validName(x.Name) || checkID(x.ID) != nil || ids[x.ID] {
				t.Fatalf("took %+v", x)
			}
			ids[x.ID] = true
		}
	})
}
