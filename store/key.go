package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync/atomic"

	"bloq-agent/store/turn"

	"filippo.io/age"
)

// The files of a Key.
const (
	credentialKeyFile = "bloq-agent.key" // in the credentials directory
	sealedKeyFile     = "identity.age"   // under a passphrase
	bareKeyFile       = "identity.txt"
	recipientFile     = "recipient.txt" // the public half of a sealed key
)

// scryptWork is age's work factor for a passphrase: 2^15, about 0.1 s and 32
// MB. The default, 2^18, would take more memory than the daemon may have.
const scryptWork = 15

// A Key is the X25519 identity (age) that a File store is encrypted to. It
// comes from the first of these that is there:
//
//	source        where                                      protects against
//	credential    $CREDENTIALS_DIRECTORY/bloq-agent.key      as systemd does: with LoadCredentialEncrypted= even a stolen disk
//	passphrase    identity.age in the key directory          a stolen disk or backup, while locked
//	bare          identity.txt in the key directory          copies and backups of the state directory alone
//
// A bare key is made when the first item is saved and there is none. Neither
// protects against programs of the same user while the daemon runs unlocked.
type Key struct {
	dir         string // of the key files; not where the items are
	credentials string // $CREDENTIALS_DIRECTORY, or ""

	mu      turn.Mutex
	opened  *age.X25519Identity // what Unlock has opened; nil otherwise
	settled bool                // the names of its files are on the disk

	described atomic.Pointer[string] // what Look found
}

// NewKey does not read anything yet. Dir is made when it is needed.
func NewKey(dir, credentials string) *Key { return &Key{dir: dir, credentials: credentials} }

// errKeyLocked tells the person what to type.
func errKeyLocked() error {
	return &Unavailable{Store: "file store", Reason: reasonLocked, Locked: true, Hint: "bloq-agent unlock"}
}

// ErrPassphrase says that a passphrase does not open the key.
var ErrPassphrase = errors.New("wrong passphrase")

// Source is which of the sources is in force: "credential", "passphrase",
// "bare", or "" while there is none. A disk that fails does not say that there is
// none: a new key would take the place of the one that opens the logins.
func (k *Key) Source() (string, error) {
	for _, s := range []struct{ name, path string }{
		{"credential", filepath.Join(k.credentials, credentialKeyFile)},
		{"passphrase", k.file(sealedKeyFile)},
		{"bare", k.file(bareKeyFile)},
	} {
		if s.name == "credential" && k.credentials == "" {
			continue
		}
		_, err := disk.Lstat(s.path)
		if err == nil {
			return s.name, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("cannot look for the key of the file store: %w", err)
		}
	}
	return "", nil
}

// Describe is one sentence on what the key protects, for people. It is what the
// last Look found: status must not wait for a disk.
func (k *Key) Describe() string {
	if k.described.Load() == nil {
		k.Look()
	}
	return *k.described.Load()
}

// Look reads what Describe says. The methods that read or change the key call it
// too.
func (k *Key) Look() {
	text := k.describe()
	k.described.Store(&text)
}

func (k *Key) describe() string {
	source, err := k.Source()
	if err != nil {
		return err.Error()
	}
	switch source {
	case "credential":
		return "its key is a systemd credential"
	case "passphrase":
		if exists(k.file(bareKeyFile)) {
			return "its key is under a passphrase, but an unprotected one lies in " + k.file(bareKeyFile) + "; bloq-agent unlock removes that, if it is the same"
		}
		return "its key is under a passphrase: a stolen disk or backup opens nothing"
	case "":
		return "it has no key here"
	}
	return "its key lies in " + k.file(bareKeyFile) + " unprotected: a copy of the state directory alone opens nothing, a copy of your home does"
}

func (k *Key) file(name string) string { return filepath.Join(k.dir, name) }

func exists(path string) bool {
	_, err := disk.Lstat(path)
	return err == nil
}

// identity is the secret half.
func (k *Key) identity() (*age.X25519Identity, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.Look()
	source, err := k.Source()
	if err != nil {
		return nil, err
	}
	switch source {
	case "credential":
		return k.fromCredential()
	case "passphrase":
		if k.opened == nil {
			return nil, errKeyLocked()
		}
		return k.opened, nil
	case "bare":
		return parseIdentityFile(k.file(bareKeyFile))
	}
	return nil, fmt.Errorf("%w: there is none in %s", ErrOtherKey, k.dir)
}

// recipient is the public half. A bare key is made if there is none at all.
func (k *Key) recipient() (*age.X25519Recipient, error) {
	source, err := k.Source()
	if err != nil {
		return nil, err
	}
	if source == "passphrase" {
		b, err := disk.ReadOwn(k.file(recipientFile))
		if err != nil {
			return nil, err
		}
		r, err := age.ParseX25519Recipient(string(bytes.TrimSpace(b)))
		if err != nil {
			return nil, fmt.Errorf("%s is not a recipient", k.file(recipientFile))
		}
		return r, nil
	}
	if source == "" {
		if err := k.make(); err != nil {
			return nil, err
		}
	}
	i, err := k.identity()
	if err != nil {
		return nil, err
	}
	return i.Recipient(), nil
}

// settle makes the names of the key's files durable, once: another process may have
// been killed between its rename and its sync. An item must not outlive its key.
func (k *Key) settle() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	source, err := k.Source()
	if k.settled || err != nil || source == "credential" || source == "" {
		return err
	}
	err = syncDir(k.dir)
	k.settled = err == nil
	return err
}

func (k *Key) make() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.Look()
	if source, err := k.Source(); source != "" || err != nil {
		return err // nil: somebody else was quicker
	}
	if err := disk.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	if err := disk.CheckOwn(k.dir, fs.ModeDir); err != nil {
		return err
	}
	i, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	return WriteFile(k.file(bareKeyFile), []byte(i.String()+"\n"))
}

// fromCredential trusts the directory: systemd made it for us alone, owned by
// root or by us as its version has it.
func (k *Key) fromCredential() (*age.X25519Identity, error) {
	path := filepath.Join(k.credentials, credentialKeyFile)
	b, err := disk.Read(path)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	return parseIdentity(path, b)
}

func parseIdentityFile(path string) (*age.X25519Identity, error) {
	b, err := disk.ReadOwn(path)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	return parseIdentity(path, b)
}

// parseIdentity takes what age-keygen writes, comments included.
func parseIdentity(path string, b []byte) (*age.X25519Identity, error) {
	for line := range bytes.Lines(b) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		i, err := cipher.Identity(string(line))
		if err != nil {
			break // the library's text may quote it
		}
		return i, nil
	}
	return nil, fmt.Errorf("%s is not an age identity", path)
}

// Unlock opens a key that is under a passphrase, or sees that the passphrase is
// right if it is open already. For any other key it does nothing.
func (k *Key) Unlock(passphrase []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.Look()
	source, err := k.Source()
	if source != "passphrase" || k.opened != nil && len(passphrase) == 0 {
		return err
	}
	return k.unlockLocked(passphrase)
}

func (k *Key) unlockLocked(passphrase []byte) error {
	sealed, err := disk.ReadOwn(k.file(sealedKeyFile))
	if err != nil {
		return err
	}
	s, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return ErrPassphrase // it is empty
	}
	s.SetMaxWorkFactor(scryptWork)
	plain, err := decrypt(sealed, s)
	if err != nil {
		return ErrPassphrase // age cannot tell a wrong one from a changed file
	}
	defer clear(plain)
	i, err := parseIdentity(k.file(sealedKeyFile), plain)
	if err != nil {
		return err
	}
	k.opened = i
	return k.dropBare(i)
}

// dropBare removes the bare copy of i that a Protect which was killed has left.
// Any other key there may be the only copy of itself.
func (k *Key) dropBare(i *age.X25519Identity) error {
	bare, err := parseIdentityFile(k.file(bareKeyFile))
	if err != nil || bare.String() != i.String() {
		return nil
	}
	if err := disk.Remove(k.file(bareKeyFile)); err != nil {
		return err
	}
	return syncDir(k.dir)
}

// Lock forgets what Unlock opened.
func (k *Key) Lock() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.opened = nil
}

// Locked reports whether it takes a passphrase to go on.
func (k *Key) Locked() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	source, _ := k.Source() // an error comes again where the key is used
	return source == "passphrase" && k.opened == nil
}

// Protect puts the bare key under a passphrase. The sealed key is in place and
// has been read back before the bare one is removed.
func (k *Key) Protect(passphrase []byte) error {
	if err := k.make(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.Look()
	s, err := k.Source()
	if err != nil {
		return err
	}
	if s == "passphrase" && exists(k.file(bareKeyFile)) {
		return k.unlockLocked(passphrase) // goes on where another was killed
	}
	if s != "bare" {
		return fmt.Errorf("the key of the file store is a %s already", s)
	}
	i, err := parseIdentityFile(k.file(bareKeyFile))
	if err != nil {
		return err
	}
	to, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return errors.New("the passphrase is empty")
	}
	to.SetWorkFactor(scryptWork)
	sealed, err := encrypt([]byte(i.String()+"\n"), to)
	if err != nil {
		return err
	}
	if err := WriteFile(k.file(recipientFile), []byte(i.Recipient().String()+"\n")); err != nil {
		return err
	}
	// From here on the sealed key is in force; a bare one beside it is not read.
	if err := WriteFile(k.file(sealedKeyFile), sealed); err != nil {
		return err
	}
	k.opened = i
	return k.dropBare(i)
}
