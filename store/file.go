package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"bloq-agent/store/turn"

	"filippo.io/age"
)

// File keeps each item in a file of its own, encrypted with age to one X25519
// key. What that protects depends on where the key is: see Key.
//
// A file that is not plainly ours (its owner, mode or type), or that does not
// open, is refused with the reason and never overwritten: when a new login
// takes its place it is put aside under the suffix .damaged.
type File struct {
	dir string // of the items
	key *Key

	mu turn.Mutex // one writer at a time

	state atomic.Pointer[Dir] // checked before each write; may be nil
}

// NewFile keeps items in dir, which must be there, under key.
func NewFile(dir string, key *Key) *File { return &File{dir: dir, key: key} }

// CheckFirst makes f check, before it writes, that d is still the directory at its
// path.
func (f *File) CheckFirst(d *Dir) { f.state.Store(d) }

func (f *File) check() error {
	if d := f.state.Load(); d != nil {
		return d.Check()
	}
	return nil
}

// Stamp changes whenever the item's file does, a file of the key, or a directory
// on the way to them: in content, mode or owner.
func (f *File) Stamp(id string) string {
	stamp := fileStamp(f.path(id)) + wayStamp(f.dir) + wayStamp(f.key.dir)
	for _, name := range []string{sealedKeyFile, bareKeyFile, recipientFile} {
		stamp += fileStamp(f.key.file(name))
	}
	return stamp
}

func wayStamp(dir string) string {
	stamp := stampOf(disk.Stat(dir)) // which may be a link
	if up := filepath.Dir(dir); up != dir {
		stamp += wayStamp(up)
	}
	return stamp
}

func fileStamp(path string) string { return stampOf(disk.Lstat(path)) }

func stampOf(fi fs.FileInfo, err error) string {
	if err != nil {
		return err.Error() + "\n"
	}
	st, _ := fi.Sys().(*syscall.Stat_t)
	if st == nil {
		return fmt.Sprintln(fi.ModTime(), fi.Mode(), fi.Size())
	}
	return fmt.Sprintln(st.Dev, st.Ino, st.Uid, fi.Mode(), fi.Size(), fi.ModTime().UnixNano())
}

// Name is "file".
func (f *File) Name() string { return "file" }

// Key is what the items are encrypted to.
func (f *File) Key() *Key { return f.key }

func (f *File) path(id string) string { return filepath.Join(f.dir, id+".age") }

// Load decrypts an item. It is an Unavailable while the key is locked.
func (f *File) Load(ctx context.Context, id string) (Item, error) {
	if err := usable(ctx, id); err != nil {
		return Item{}, err
	}
	sealed, err := disk.ReadOwn(f.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return Item{}, ErrNotFound
	}
	if err != nil {
		return Item{}, err
	}
	identity, err := f.key.identity()
	if err != nil {
		return Item{}, err
	}
	item, err := unseal(sealed, identity)
	if err != nil {
		return Item{}, fmt.Errorf("%s: %w", f.path(id), err)
	}
	return item, nil
}

// Save encrypts an item anew; the ciphertext is another each time. It needs the
// key's public half alone, so it works while the key is locked.
func (f *File) Save(ctx context.Context, id string, item Item) error {
	if err := usable(ctx, id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(); err != nil {
		return err
	}
	recipient, err := f.key.recipient()
	if err == nil {
		err = f.key.settle()
	}
	if err != nil {
		return err
	}
	if err := f.makeWay(id); err != nil {
		return err
	}
	sealed, err := seal(item, recipient)
	if err != nil {
		return err
	}
	return WriteFile(f.path(id), sealed)
}

// makeWay looks at what Save is about to replace. What does not open may be the
// only copy of something: it is put aside.
func (f *File) makeWay(id string) error {
	path := f.path(id)
	sealed, err := disk.ReadOwn(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	identity, err := f.key.identity()
	if err != nil {
		return nil // locked: it cannot be judged, and whoever saves has read it before
	}
	item, err := unseal(sealed, identity)
	if err != nil {
		return putAside(path)
	}
	item.Wipe()
	return nil
}

// putAside never replaces what was put aside before.
func putAside(path string) error {
	to := path + ".damaged"
	for n := 2; exists(to); n++ {
		to = fmt.Sprintf("%s.damaged-%d", path, n)
	}
	return disk.Rename(path, to)
}

// Delete removes the item's file.
func (f *File) Delete(ctx context.Context, id string) error {
	if err := usable(ctx, id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(); err != nil {
		return err
	}
	err := disk.Remove(f.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(f.dir)
}

func seal(item Item, to age.Recipient) ([]byte, error) {
	plain, err := encodeItem(item)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return cipher.Encrypt(plain, to)
}

// A Cipher is what seals the items of a File: age. A simulation puts one in its
// place that costs nothing; the key's own files are under age all the same.
type Cipher interface {
	Encrypt(plain []byte, to age.Recipient) ([]byte, error)
	// Decrypt fails with ErrOtherKey or ErrDamaged.
	Decrypt(sealed []byte, identity age.Identity) ([]byte, error)
	// Identity reads a key as age-keygen writes it.
	Identity(text string) (*age.X25519Identity, error)
}

var cipher Cipher = ageCipher{}

type ageCipher struct{}

func (ageCipher) Encrypt(plain []byte, to age.Recipient) ([]byte, error) { return encrypt(plain, to) }

func (ageCipher) Decrypt(sealed []byte, identity age.Identity) ([]byte, error) {
	return decrypt(sealed, identity)
}

func (ageCipher) Identity(text string) (*age.X25519Identity, error) {
	return age.ParseX25519Identity(text)
}

// ReplaceCipher is for tests alone, as ReplaceDisk. It returns the cipher that c
// replaces.
func ReplaceCipher(c Cipher) (before Cipher) {
	before, cipher = cipher, c
	return before
}

func encrypt(plain []byte, to age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	return out.Bytes(), nil
}

func unseal(sealed []byte, identity age.Identity) (Item, error) {
	plain, err := cipher.Decrypt(sealed, identity)
	if err != nil {
		return Item{}, err
	}
	defer clear(plain)
	return decodeItem(plain)
}

func decrypt(sealed []byte, identity age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), identity)
	var other *age.NoIdentityMatchError
	if errors.As(err, &other) {
		return nil, fmt.Errorf("%w: it was encrypted to another one, or its header is changed", ErrOtherKey)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: its header is broken", ErrDamaged)
	}
	plain := make([]byte, len(sealed)) // the plain text is shorter
	n, err := io.ReadFull(r, plain)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(plain)
		return nil, fmt.Errorf("%w: its content is cut or changed", ErrDamaged)
	}
	return plain[:n], nil
}
