package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/store"
	"bloq-agent/store/storetest"

	"filippo.io/age"
)

// A home is where a file store lives: items, key directory, credentials.
type home struct{ items, keys, credentials string }

func newHome(t *testing.T) home {
	t.Helper()
	h := home{filepath.Join(t.TempDir(), "items"), filepath.Join(t.TempDir(), "keys"), t.TempDir()}
	if err := os.Mkdir(h.items, 0o700); err != nil {
		t.Fatal(err)
	}
	return h
}

// open is as after a restart.
func (h home) open() *store.File {
	return store.NewFile(h.items, store.NewKey(h.keys, h.credentials))
}

func (h home) withCredential(t *testing.T) home {
	t.Helper()
	i, err := age.GenerateX25519Identity()
	do(t, err)
	do(t, os.WriteFile(filepath.Join(h.credentials, "bloq-agent.key"), []byte("# made for a test\n"+i.String()+"\n"), 0o400))
	return h
}

func (h home) withPassphrase(t *testing.T) home {
	t.Helper()
	do(t, h.open().Key().Protect([]byte("correct horse")))
	return h
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) {
	t.Run("bare key", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store { return newHome(t).open() })
	})
	t.Run("credential", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store { return newHome(t).withCredential(t).open() })
	})
	t.Run("passphrase", func(t *testing.T) {
		f := newHome(t).withPassphrase(t).open() // one for all: scrypt is slow on purpose
		do(t, f.Key().Unlock([]byte("correct horse")))
		storetest.Run(t, func(*testing.T) store.Store { return f })
	})
}

func item(token string) store.Item {
	return store.Item{Origin: "https://x.example", RefreshToken: store.NewSecret([]byte(token))}
}

func TestAKeyUnderAPassphrase(t *testing.T) {
	h := newHome(t)
	id := store.NewID()
	do(t, h.open().Save(t.Context(), id, item("canary")))
	if got, err := h.open().Key().Source(); got != "bare" {
		t.Errorf("source %q, %v", got, err)
	}
	h.withPassphrase(t)
	if _, err := os.Stat(filepath.Join(h.keys, "identity.txt")); err == nil {
		t.Error("the bare key is still there")
	}
	f := h.open()
	var u *store.Unavailable
	if _, err := f.Load(t.Context(), id); !errors.As(err, &u) || !u.Locked || u.Hint != "bloq-agent unlock" {
		t.Errorf("locked: %v", err)
	}
	do(t, f.Save(t.Context(), id, item("saved while locked")))
	for _, wrong := range []string{"", "wrong", "correct horse "} {
		if err := f.Key().Unlock([]byte(wrong)); !errors.Is(err, store.ErrPassphrase) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	do(t, f.Key().Unlock([]byte("correct horse")))
	got, err := f.Load(t.Context(), id)
	if err != nil || string(got.RefreshToken.Reveal()) != "saved while locked" {
		t.Errorf("%v, %v", got, err)
	}
	f.Key().Lock()
	if _, err := f.Load(t.Context(), id); !errors.As(err, &u) || !f.Key().Locked() {
		t.Errorf("locked again: %v", err)
	}
	if f.Key().Protect([]byte("other")) == nil {
		t.Error("a passphrase was replaced without asking for it")
	}
}

// What Protect was killed in the middle of: the bare key is not read, nor
// concealed, and goes as soon as the sealed one has been opened.
func TestABareKeyBesideASealedOne(t *testing.T) {
	for name, finish := range map[string]func(*store.Key) error{
		"unlock":        func(k *store.Key) error { return k.Unlock([]byte("correct horse")) },
		"protect again": func(k *store.Key) error { return k.Protect([]byte("correct horse")) },
	} {
		h := newHome(t)
		id := store.NewID()
		do(t, h.open().Save(t.Context(), id, item("x")))
		path := filepath.Join(h.keys, "identity.txt")
		bare, err := os.ReadFile(path)
		do(t, err)
		h.withPassphrase(t)
		do(t, os.WriteFile(path, bare, 0o600))
		f := h.open()
		if !f.Key().Locked() || !strings.Contains(f.Key().Describe(), path) {
			t.Errorf("%s: the bare key is in force again, or concealed: %s", name, f.Key().Describe())
		}
		do(t, finish(f.Key()))
		if _, err := os.Stat(path); err == nil || strings.Contains(f.Key().Describe(), path) {
			t.Errorf("%s: the bare key is still there", name)
		}
		_, err = f.Load(t.Context(), id)
		do(t, err)
	}
	// Another key may be the only copy of itself.
	h := newHome(t).withPassphrase(t)
	other := newHome(t)
	do(t, other.open().Save(t.Context(), store.NewID(), item("x")))
	path := filepath.Join(h.keys, "identity.txt")
	do(t, os.Rename(filepath.Join(other.keys, "identity.txt"), path))
	k := h.open().Key()
	do(t, k.Unlock([]byte("correct horse")))
	if _, err := os.Stat(path); err != nil || !strings.Contains(k.Describe(), path) {
		t.Errorf("%v; %s", err, k.Describe())
	}
	if err := k.Unlock([]byte("wrong")); !errors.Is(err, store.ErrPassphrase) {
		t.Errorf("a wrong passphrase for a key that is open: %v", err)
	}
}

// More than 2^15 takes more memory than the daemon may have; less is guessed
// sooner.
func TestTheWorkFactorOfThePassphrase(t *testing.T) {
	h := newHome(t).withPassphrase(t)
	b, err := os.ReadFile(filepath.Join(h.keys, "identity.age"))
	do(t, err)
	header := strings.Fields(strings.SplitN(string(b), "\n", 3)[1])
	if len(header) != 4 || header[1] != "scrypt" || header[3] != "15" {
		t.Errorf("%q", header)
	}
}

func TestNothingIsReadableAndNoTwoSavesAlike(t *testing.T) {
	h := newHome(t)
	f := h.open()
	id := store.NewID()
	path := filepath.Join(h.items, id+".age")
	var before []byte
	for range 3 {
		do(t, f.Save(t.Context(), id, item("canary")))
		b, err := os.ReadFile(path)
		do(t, err)
		if bytes.Equal(b, before) || bytes.Contains(b, []byte("canary")) || bytes.Contains(b, []byte("x.example")) {
			t.Errorf("%q", b)
		}
		before = b
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
}

func TestABackupWithoutTheKeyOpensNothing(t *testing.T) {
	h := newHome(t)
	id := store.NewID()
	do(t, h.open().Save(t.Context(), id, item("canary")))
	elsewhere := newHome(t)
	elsewhere.items = h.items
	if _, err := elsewhere.open().Load(t.Context(), id); !errors.Is(err, store.ErrOtherKey) || errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), elsewhere.keys) {
		t.Errorf("no key: %v", err)
	}
	if note := elsewhere.open().Key().Describe(); strings.Contains(note, "identity.txt") {
		t.Errorf("it names a file that is not there: %s", note)
	}
	if _, err := elsewhere.withCredential(t).open().Load(t.Context(), id); !errors.Is(err, store.ErrOtherKey) || errors.Is(err, store.ErrDamaged) {
		t.Errorf("another key: %v", err)
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(path string) error
		text  string
	}{
		"symlink": {func(p string) error {
			if err := os.Rename(p, p+".real"); err != nil {
				return err
			}
			return os.Symlink(p+".real", p)
		}, "symbolic link"},
		"FIFO": {func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return syscall.Mkfifo(p, 0o600)
		}, "not a regular file"},
		"mode":  {func(p string) error { return os.Chmod(p, 0o640) }, "chmod 600"},
		"owner": {func(p string) error { return os.Chown(p, 65534, -1) }, "another user"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "owner" && os.Getuid() != 0 {
				t.Skip("needs root to give a file away: sudo go test ./store")
			}
			h := newHome(t)
			f, id := h.open(), store.NewID()
			do(t, f.Save(t.Context(), id, item("x")))
			path := filepath.Join(h.items, id+".age")
			do(t, tt.spoil(path))
			before, err := os.Lstat(path)
			do(t, err)
			if _, err := f.Load(t.Context(), id); err == nil || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), path) {
				t.Errorf("Load: %v", err)
			}
			if err := f.Save(t.Context(), id, item("y")); err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Save: %v", err)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Error("it was overwritten")
			}
		})
	}
}

func TestADamagedFileIsRefusedAndPutAside(t *testing.T) {
	h := newHome(t)
	f, id := h.open(), store.NewID()
	do(t, f.Save(t.Context(), id, item("x")))
	path := filepath.Join(h.items, id+".age")
	whole, err := os.ReadFile(path)
	do(t, err)
	for i := range whole {
		do(t, os.WriteFile(path, whole[:i], 0o600))
		if _, err := f.Load(t.Context(), id); !errors.Is(err, store.ErrDamaged) {
			t.Fatalf("the first %d bytes of %d: %v", i, len(whole), err)
		}
		flipped := bytes.Clone(whole)
		flipped[i] ^= 1
		do(t, os.WriteFile(path, flipped, 0o600))
		if _, err := f.Load(t.Context(), id); !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrOtherKey) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	damaged := whole[:len(whole)-1]
	do(t, os.WriteFile(path, damaged, 0o600))
	do(t, f.Save(t.Context(), id, item("new login")))
	if b, err := os.ReadFile(path + ".damaged"); err != nil || !bytes.Equal(b, damaged) {
		t.Errorf("what was damaged is lost: %v", err)
	}
	if got, err := f.Load(t.Context(), id); err != nil || string(got.RefreshToken.Reveal()) != "new login" {
		t.Errorf("%v", err)
	}
	for n := range 3 {
		do(t, os.WriteFile(path, fmt.Append(nil, "damage ", n), 0o600))
		do(t, f.Save(t.Context(), id, item("new login")))
	}
	if list, _ := filepath.Glob(path + ".damaged*"); len(list) != 4 {
		t.Errorf("four were damaged, put aside are %q", list)
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"open to others": func(p string) error { return os.Chmod(p, 0o644) },
		"garbage":        func(p string) error { return os.WriteFile(p, []byte("AGE-SECRET-KEY-1GARBAGE\n"), 0o600) },
		"empty":          func(p string) error { return os.WriteFile(p, nil, 0o600) },
	} {
		h := newHome(t)
		f, id := h.open(), store.NewID()
		do(t, f.Save(t.Context(), id, item("x")))
		path := filepath.Join(h.keys, "identity.txt")
		do(t, spoil(path))
		before, _ := os.ReadFile(path)
		if _, err := f.Load(t.Context(), id); err == nil || strings.Contains(err.Error(), "GARBAGE") {
			t.Errorf("%s: %v", name, err)
		}
		if err := f.Save(t.Context(), id, item("y")); err == nil {
			t.Errorf("%s: saved", name)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Errorf("%s: the key was overwritten", name)
		}
	}
}

// A blindDisk does not tell whether a file is there.
type blindDisk struct{ store.Disk }

func (blindDisk) Lstat(string) (fs.FileInfo, error) { return nil, syscall.ESTALE }

// A disk that fails does not say that there is no key: nothing is taken for lost, and
// no new key takes the place of the one that opens the logins.
func TestAKeyThatCannotBeLookedFor(t *testing.T) {
	h := newHome(t)
	f, id := h.open(), store.NewID()
	do(t, f.Save(t.Context(), id, item("x")))
	path := filepath.Join(h.keys, "identity.txt")
	before, err := os.ReadFile(path)
	do(t, err)
	disk := store.ReplaceDisk(nil)
	store.ReplaceDisk(blindDisk{disk})
	defer store.ReplaceDisk(disk)
	if _, err := f.Load(t.Context(), id); !errors.Is(err, syscall.ESTALE) || errors.Is(err, store.ErrOtherKey) {
		t.Errorf("load: %v", err)
	}
	if err := f.Save(t.Context(), store.NewID(), item("y")); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("save: %v", err)
	}
	if err := f.Key().Protect([]byte("correct horse")); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("protect: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("there is another key")
	}
}

func TestCredential(t *testing.T) {
	h := newHome(t).withCredential(t)
	id := store.NewID()
	c := store.NewCredential(h.credentials, "work", h.open())
	if _, err := c.Load(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
	write := func(kind, text string) {
		t.Helper()
		do(t, os.WriteFile(filepath.Join(h.credentials, "bloq-agent.work."+kind), []byte(text), 0o600))
	}
	write("client-secret", "the-secret\n")
	if _, err := c.Load(t.Context(), id); err == nil || err.Error() != "credential bloq-agent.work.client-id is missing" {
		t.Errorf("no client ID: %v", err)
	}
	write("client-id", "the-id\n")
	do(t, os.Remove(filepath.Join(h.credentials, "bloq-agent.work.client-secret")))
	if _, err := c.Load(t.Context(), id); err == nil || err.Error() != "credential bloq-agent.work.client-secret is missing" {
		t.Errorf("no client secret: %v", err)
	}
	write("client-secret", "the-secret\n")
	read, err := c.Load(t.Context(), id)
	do(t, err)
	t.Run("client keys", func(t *testing.T) { storetest.ReadOnly(t, c, read) })
	got, err := c.Load(t.Context(), id)
	if err != nil || got.ClientID != "the-id" || string(got.ClientSecret.Reveal()) != "the-secret" || !got.RefreshToken.IsZero() || got.Origin != "" {
		t.Errorf("client keys: %v, %v", got, err)
	}
	write("refresh-token", "first")
	got, err = c.Load(t.Context(), id)
	if err != nil || string(got.RefreshToken.Reveal()) != "first" {
		t.Errorf("refresh token: %v, %v", got, err)
	}
	t.Run("refresh token", func(t *testing.T) { storetest.ReadOnly(t, c, got) })
	got.RefreshToken = store.NewSecret([]byte("rotated"))
	got.Origin = "https://x.example"
	do(t, c.Save(t.Context(), id, got))
	again := store.NewCredential(h.credentials, "work", h.open())
	got, err = again.Load(t.Context(), id)
	if err != nil || string(got.RefreshToken.Reveal()) != "rotated" || got.Origin != "https://x.example" {
		t.Errorf("what was rotated: %v, %v", got, err)
	}
	write("refresh-token", "second") // the person has put another there
	got, err = again.Load(t.Context(), id)
	if err != nil || string(got.RefreshToken.Reveal()) != "second" {
		t.Errorf("a new credential: %v, %v", got, err)
	}
	for _, bad := range []string{"", "\n", "two\nlines"} {
		write("refresh-token", bad)
		if _, err := again.Load(t.Context(), id); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if got := store.CredentialProfiles(h.credentials); len(got) != 1 || got[0] != "work" {
		t.Errorf("%v", got)
	}
}

// What lies in the credentials directory is not of our making: nothing there may
// hold the daemon up, or fill its memory.
func TestCredentialsThatAreNoFiles(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"FIFO":             func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"link to a FIFO":   func(p string) error { return errors.Join(syscall.Mkfifo(p+".fifo", 0o600), os.Symlink(p+".fifo", p)) },
		"directory":        func(p string) error { return os.Mkdir(p, 0o700) },
		"endless device":   func(p string) error { return os.Symlink("/dev/zero", p) },
		"link to itself":   func(p string) error { return os.Symlink(p, p) },
		"others' to write": func(p string) error { return errors.Join(os.WriteFile(p, []byte("token"), 0o600), os.Chmod(p, 0o602)) },
		"longer than 1 M":  func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("x"), 1<<20+1), 0o600) },
	} {
		h := newHome(t)
		do(t, make(filepath.Join(h.credentials, "bloq-agent.work.refresh-token")))
		if _, err := store.NewCredential(h.credentials, "work", h.open()).Load(t.Context(), store.NewID()); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s as a refresh token: %v", name, err)
		}
		h = newHome(t)
		do(t, make(filepath.Join(h.credentials, "bloq-agent.key")))
		if err := h.open().Save(t.Context(), store.NewID(), item("x")); err == nil {
			t.Errorf("%s as a key was taken", name)
		}
	}
	h := newHome(t) // as some managers lay credentials out
	do(t, os.WriteFile(filepath.Join(h.credentials, "..data"), []byte("token"), 0o400))
	do(t, os.Symlink("..data", filepath.Join(h.credentials, "bloq-agent.work.refresh-token")))
	got, err := store.NewCredential(h.credentials, "work", h.open()).Load(t.Context(), store.NewID())
	if err != nil || string(got.RefreshToken.Reveal()) != "token" {
		t.Errorf("a link to a file: %v", err)
	}
}
