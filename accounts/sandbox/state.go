package sandbox

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// state is what --state keeps. No secret in it is in clear but the signing
// key, which signs for nobody else.
type state struct {
	Email    string                   `json:"email"`
	UserID   string                   `json:"user_id"`
	Password string                   `json:"password_hash"`
	Key      []byte                   `json:"signing_key"` // PKCS #1; if Unsigned: bytes
	Clients  map[string]*client       `json:"clients"`     // :: client ID → its keys
	Refresh  map[string]*refreshToken `json:"refresh"`     // :: jti → the token
	Revoked  map[string]bool          `json:"revoked"`     // :: family → true
}

type client struct {
	Secret  string    `json:"secret_hash"`
	Created time.Time `json:"created"`
}

// A refreshToken belongs to the family of the client-credentials grant that it
// descends from.
type refreshToken struct {
	Family string    `json:"family"`
	Next   string    `json:"next,omitempty"` // the one that replaced it
	Used   time.Time `json:"used,omitzero"`
}

// load fills s from its file, or anew.
func (s *Server) load() error {
	data, err := os.ReadFile(s.config.StateFile)
	switch {
	case s.config.StateFile == "" || errors.Is(err, fs.ErrNotExist):
		return s.found()
	case err != nil:
		return err
	}
	if err := json.Unmarshal(data, &s.state); err != nil {
		return fmt.Errorf("%s: %w", s.config.StateFile, err)
	}
	if !s.config.Unsigned {
		if s.key, err = x509.ParsePKCS1PrivateKey(s.state.Key); err != nil {
			return fmt.Errorf("%s: signing key: %w", s.config.StateFile, err)
		}
	}
	if s.state.Clients == nil || s.state.Refresh == nil || s.state.Revoked == nil {
		return fmt.Errorf("%s: is not the state of a sandbox", s.config.StateFile)
	}
	if s.config.Email != "" {
		s.state.Email = s.config.Email
	}
	if s.password != "" {
		s.state.Password = hash(s.password)
	}
	return s.save()
}

// found makes a user and a signing key.
func (s *Server) found() error {
	key := []byte(rand.Text())
	if !s.config.Unsigned {
		var err error
		if s.key = s.config.Key; s.key == nil {
			s.key, err = rsa.GenerateKey(rand.Reader, 2048)
		}
		if err != nil {
			return fmt.Errorf("making a signing key: %w", err)
		}
		key = x509.MarshalPKCS1PrivateKey(s.key)
	}
	if s.password == "" {
		s.password = randomHex(8)
	}
	email := s.config.Email
	if email == "" {
		email = "demo@bloq.example"
	}
	s.state = state{
		Email: email, UserID: "user-" + randomHex(16), Password: hash(s.password), Key: key,
		Clients: map[string]*client{}, Refresh: map[string]*refreshToken{}, Revoked: map[string]bool{},
	}
	return s.save()
}

// save writes the state. Whoever calls it after New holds s.mu.
func (s *Server) save() error {
	path := s.config.StateFile
	if path == "" {
		return nil
	}
	data, err := json.Marshal(s.state)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".sandbox-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
