package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// Credential reads a login from systemd's credentials (LoadCredential=,
// LoadCredentialEncrypted=; systemd.exec(5)), for machines where nobody logs in
// at a keyboard. It is read-only, as they are: what the endpoint rotates is
// kept in a File store, until the credential itself is another.
//
// The credentials of a profile are bloq-agent.PROFILE.refresh-token, or
// bloq-agent.PROFILE.client-id and bloq-agent.PROFILE.client-secret.
type Credential struct {
	dir     string // $CREDENTIALS_DIRECTORY
	profile string
	kept    *File
}

// NewCredential is the store of one profile.
func NewCredential(dir, profile string, kept *File) *Credential {
	return &Credential{dir: dir, profile: profile, kept: kept}
}

const credentialPrefix = "bloq-agent."

// CredentialProfiles are the profiles that dir has a login for.
func CredentialProfiles(dir string) []string {
	var names []string
	for _, kind := range []string{".refresh-token", ".client-secret"} {
		list, err := disk.Glob(filepath.Join(dir, credentialPrefix+"*"+kind))
		if dir == "" || err != nil {
			continue
		}
		for _, path := range list {
			name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), credentialPrefix), kind)
			if validName(name) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// Place is where the store called name keeps what it is given. What a
// Credential keeps is the File store's: who drops one drops the other.
func Place(name string) string {
	if name == "credential" {
		return "file"
	}
	return name
}

// Name is "credential".
func (c *Credential) Name() string { return "credential" }

// Load is what was kept of the credential, else the credential itself. The
// latter has no Origin: it belongs to whatever the configuration names.
func (c *Credential) Load(ctx context.Context, id string) (Item, error) {
	if err := usable(ctx, id); err != nil {
		return Item{}, err
	}
	item, err := c.read()
	if err != nil {
		return Item{}, err
	}
	kept, err := c.kept.Load(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return item, nil
	case err != nil:
		// Not the credential instead: its token may have been rotated away.
		item.Wipe()
		return Item{}, err
	case kept.Source != item.Source:
		kept.Wipe() // the person has put another credential in its place
		return item, nil
	}
	item.Wipe()
	return kept, nil
}

// Fingerprint tells the credential that is there from any other. It is "" if there
// is none.
func (c *Credential) Fingerprint() string {
	item, err := c.read()
	if err != nil {
		return ""
	}
	defer item.Wipe()
	return item.Source
}

// Save keeps what was rotated.
func (c *Credential) Save(ctx context.Context, id string, item Item) error {
	return c.kept.Save(ctx, id, item)
}

// Delete forgets what was kept; the credential is not ours to delete.
func (c *Credential) Delete(ctx context.Context, id string) error { return c.kept.Delete(ctx, id) }

// Stamp changes whenever a file of the login does.
func (c *Credential) Stamp(id string) string {
	stamp := c.kept.Stamp(id)
	for _, kind := range []string{"refresh-token", "client-id", "client-secret"} {
		stamp += fileStamp(c.path(kind))
	}
	return stamp
}

func (c *Credential) path(kind string) string {
	return filepath.Join(c.dir, credentialPrefix+c.profile+"."+kind)
}

func (c *Credential) read() (Item, error) {
	token, err := c.file("refresh-token")
	if err == nil {
		return Item{RefreshToken: NewSecret(token), Source: fingerprint(token)}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Item{}, err
	}
	secret, secretErr := c.file("client-secret")
	id, idErr := c.file("client-id")
	switch {
	case errors.Is(secretErr, fs.ErrNotExist) && errors.Is(idErr, fs.ErrNotExist):
		return Item{}, ErrNotFound
	case secretErr != nil:
		return Item{}, missing(secretErr)
	case idErr != nil:
		clear(secret)
		return Item{}, missing(idErr)
	}
	return Item{ClientID: string(id), ClientSecret: NewSecret(secret), Source: fingerprint(id, secret)}, nil
}

// missing names the one of two credentials that is not there.
func missing(err error) error {
	var e *fs.PathError
	if errors.Is(err, fs.ErrNotExist) && errors.As(err, &e) {
		return fmt.Errorf("credential %s is missing", filepath.Base(e.Path))
	}
	return err
}

func (c *Credential) file(kind string) ([]byte, error) {
	path := c.path(kind)
	b, err := disk.Read(path)
	if err != nil {
		return nil, err
	}
	b = bytes.TrimSpace(b)
	if len(b) == 0 || bytes.ContainsAny(b, "\r\n\x00") {
		return nil, fmt.Errorf("credential %s is not one line", filepath.Base(path))
	}
	return b, nil
}

// fingerprint tells two credentials apart. They are long and random, so it
// gives nothing away.
func fingerprint(parts ...[]byte) string {
	sum := sha256.Sum256(bytes.Join(parts, []byte{0}))
	return hex.EncodeToString(sum[:])
}
