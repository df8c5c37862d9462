package refresher

import (
	"errors"
	"time"
)

// Class says what kind of failure an exchange met, and with that what may
// repair it.
type Class uint8

// The classes. Their zero value is no failure.
const (
	None Class = iota
	// Transient repairs itself: network, overload, a captive portal.
	Transient
	// Malformed is an answer that makes no sense. It is treated as transient.
	Malformed
	// Refused is a bare 401 or 403. It may be a dead refresh token or only a
	// gateway's bad hour, so it takes refusedLimit of them to be believed.
	Refused
	// Unknown is any other refusal; it is treated like Refused.
	Unknown
	// Configuration is for the person who configured the client.
	Configuration
	// NeedsLogin is an explicit word of the endpoint that the refresh token is
	// dead. Only the person can repair it.
	NeedsLogin
)

func (c Class) String() string {
	switch c {
	case None:
		return ""
	case Transient:
		return "transient"
	case Malformed:
		return "malformed"
	case Refused:
		return "refused"
	case Configuration:
		return "configuration"
	case NeedsLogin:
		return "needs login"
	}
	return "unknown"
}

// A Failure is an error of Config.Exchange.
type Failure struct {
	Class Class
	// RetryAfter is the endpoint's wish, or zero.
	RetryAfter time.Duration
	Err        error
}

func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap is the error that was classified.
func (f *Failure) Unwrap() error { return f.Err }

// An Error says why there is no valid token.
type Error struct {
	// Class is NeedsLogin, Configuration, or Transient for all that repairs
	// itself.
	Class Class
	// Next is when the next attempt is due; zero if none is.
	Next time.Time
	// Valid says that there is a token all the same, which a Refresh did not replace.
	Valid bool
	Err   error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap is what the last exchange failed with.
func (e *Error) Unwrap() error { return e.Err }

func failureOf(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	return &Failure{Class: Transient, Err: err}
}
