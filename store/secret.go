package store

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// A Secret is bytes that print as [redacted], whoever prints them: every verb
// of fmt, encoding/json, slog, zerolog. Only Reveal shows them, and a search
// for that word finds each place that does.
//
// The zero value is an empty Secret. Copies share their bytes.
type Secret struct {
	// A pointer, because %p and every wrong verb make fmt print a value's fields
	// without asking it; of a pointer they print the address.
	b *[]byte
}

// NewSecret takes b over: the caller must neither use nor change it after.
func NewSecret(b []byte) Secret {
	if b == nil {
		return Secret{}
	}
	return Secret{&b}
}

// Reveal is the bytes themselves. They must not be modified, nor kept longer
// than the Secret.
func (s Secret) Reveal() []byte {
	if s.b == nil {
		return nil
	}
	return *s.b
}

// Clone is a copy with bytes of its own.
func (s Secret) Clone() Secret { return NewSecret(bytes.Clone(s.Reveal())) }

// Wipe overwrites the bytes, for every copy of s that is no Clone.
func (s Secret) Wipe() {
	if s.b == nil {
		return
	}
	clear(*s.b)
	*s.b = nil
}

// IsZero reports whether there is nothing to keep secret.
func (s Secret) IsZero() bool { return len(s.Reveal()) == 0 }

// Equal compares in constant time.
func (s Secret) Equal(o Secret) bool { return subtle.ConstantTimeCompare(s.Reveal(), o.Reveal()) == 1 }

// Format covers every verb and flag of fmt.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String is for those who do not ask fmt.
func (s Secret) String() string { return redacted }

// GoString is String.
func (s Secret) GoString() string { return redacted }

// LogValue is for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON covers JSON, and zerolog with it.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText covers the other encodings.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

var errRedacted = errors.New("a secret is not read from what may have been redacted")

// UnmarshalJSON refuses: what was marshalled is lost, and "[redacted]" must
// never become somebody's token.
func (s *Secret) UnmarshalJSON([]byte) error { return errRedacted }

// UnmarshalText refuses, as UnmarshalJSON does.
func (s *Secret) UnmarshalText([]byte) error { return errRedacted }
