// Package sandbox is the Bloq Accounts API as a local server: login, client
// keys, both token grants with rotation and reuse detection, and a status
// route of the Nodes API. It mints real RS256 JWTs, unless Unsigned, and can be
// told to fail.
//
// It exists so that anybody can run and test everything without a Bloq
// account. It promises to behave as Bloq's documents say where they do say
// something; what they leave open (rotation, errors of a dead refresh token) it
// lets the caller choose or documents here. It starts no goroutines and reads
// no clock but Config.Now, so it works inside a bubble of virtual time.
package sandbox

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Config is how a sandbox behaves. The zero value is Bloq as documented.
type Config struct {
	AccessTTL  time.Duration // Client Access Token; 1 h
	AccountTTL time.Duration // Account Access Token; 12 h
	RefreshTTL time.Duration // Client Refresh Token; 1 year
	Rotation   Rotation      // what the refresh grant does to the refresh token
	Email      string        // the one user's; demo@bloq.example
	Password   string        // the one user's; made up if empty
	// StateFile keeps user, keys and refresh tokens over restarts, if set.
	StateFile string
	// Key signs; nil for a new one, which takes a while to make.
	Key *rsa.PrivateKey
	// Unsigned is for simulations: its tokens have an HMAC in place of a signature,
	// which costs a hundredth, and there is no RSA key to make.
	Unsigned bool
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// A Server is the API. It is an http.Handler.
type Server struct {
	config Config
	mux    *http.ServeMux
	key    *rsa.PrivateKey // nil if Unsigned
	// password is what the user types. It is empty if it was read, hashed, from
	// a state file and not given.
	password string

	mu     sync.Mutex // guards what follows
	state  state
	stats  Stats
	faults []*fault
	closed chan struct{} // ends the requests that a fault holds
}

// New makes a server, from its state file if there is one.
func New(c Config) (*Server, error) {
	setDefault(&c.AccessTTL, time.Hour)
	setDefault(&c.AccountTTL, 12*time.Hour)
	setDefault(&c.RefreshTTL, 8760*time.Hour)
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{config: c, password: c.Password, closed: make(chan struct{})}
	s.stats = Stats{Routes: map[string]int{}, Grants: map[string]int{}}
	if err := s.load(); err != nil {
		return nil, err
	}
	s.mux = s.routes()
	return s, nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// Close lets go of the requests that a fault holds.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
}

// Email is the user's.
func (s *Server) Email() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Email
}

// Password is the user's, or "" if only its hash is known.
func (s *Server) Password() string { return s.password }

// UserID is the user's.
func (s *Server) UserID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.UserID
}

// A Rotation is what the refresh grant does to the refresh token. The zero
// value leaves it as it is, which is what Bloq most likely does.
type Rotation struct {
	On bool
	// Grace is how long after its first use the token before is still good for
	// the same successor. Zero is strict: any second use revokes the family.
	Grace time.Duration
}

// ParseRotation reads none, strict, or grace=DURATION.
func ParseRotation(s string) (Rotation, error) {
	switch {
	case s == "none":
		return Rotation{}, nil
	case s == "strict":
		return Rotation{On: true}, nil
	case strings.HasPrefix(s, "grace="):
		if d, err := time.ParseDuration(s[len("grace="):]); err == nil && d > 0 {
			return Rotation{On: true, Grace: d}, nil
		}
	}
	return Rotation{}, fmt.Errorf("rotation %q: none, strict, or grace=30s", s)
}

// randomHex is n random bytes in hexadecimal.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// hash keeps secrets out of the state file. A fast one will do: they are
// random, but for a sandbox's password, which protects nothing.
func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func sameHash(secret, hashed string) bool {
	return subtle.ConstantTimeCompare([]byte(hash(secret)), []byte(hashed)) == 1
}

var errRefused = errors.New("refresh token is not accepted")

// spend uses a refresh token, by its id, and returns the id of the one that
// the client must use from now on.
func (s *Server) spend(jti string) (next string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.config.Now()
	t := s.state.Refresh[jti]
	if t == nil || s.state.Revoked[t.Family] {
		return "", errRefused
	}
	if !s.config.Rotation.On {
		return jti, nil
	}
	if t.Next == "" {
		t.Next, t.Used = randomHex(16), now
		s.state.Refresh[t.Next] = &refreshToken{Family: t.Family}
		return t.Next, s.save()
	}
	successor := s.state.Refresh[t.Next]
	if successor.Next == "" && now.Sub(t.Used) < s.config.Rotation.Grace {
		return t.Next, nil
	}
	// Somebody has a copy. Which of the two is the thief cannot be told, so
	// neither keeps it (RFC 9700 section 4.14.2).
	s.stats.Reuse++
	s.state.Revoked[t.Family] = true
	return "", errors.Join(errRefused, s.save())
}
