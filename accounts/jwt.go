package accounts

import (
	"bytes"
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The documented lifetimes, for tokens that do not tell their own.
const (
	AccessLifetime  = time.Hour
	AccountLifetime = 12 * time.Hour
)

// maxLifetime is the longest lifetime that is believed of an access or account
// token.
const maxLifetime = 24 * time.Hour

var errNotJWT = errors.New("not a JWT")

// Times are what a JWT says of itself (RFC 7519, iat and exp). A claim that is
// missing or absurd is the zero time.
type Times struct {
	IssuedAt, Expiry time.Time
}

// TokenTimes reads a token without verifying it: Bloq does not publish the
// key. So nothing may be allowed on the strength of what it returns.
func TokenTimes(token []byte) (Times, error) {
	var claims jwt.RegisteredClaims
	// Without its signature a token is worth nothing, so that the copies which the
	// parser makes need no clearing.
	end := bytes.LastIndexByte(token, '.')
	if end < 0 {
		return Times{}, errNotJWT
	}
	_, _, err := jwt.NewParser().ParseUnverified(string(token[:end])+".AA", &claims)
	if err != nil {
		return Times{}, errNotJWT // the library's text may quote the token
	}
	return Times{instant(claims.IssuedAt), instant(claims.ExpiresAt)}, nil
}

func instant(d *jwt.NumericDate) time.Time {
	if d == nil || d.Unix() <= 0 || d.Year() > 9999 {
		return time.Time{}
	}
	return d.UTC()
}

// Lifetime is how long a token lives that is issued now: a duration of the
// token's own, so that a wrong clock, here or there, changes nothing. It is
// fallback if the token does not say, and 0 if what it says is that it is dead.
func Lifetime(token []byte, now time.Time, fallback time.Duration) time.Duration {
	times, err := TokenTimes(token)
	if err != nil || times.Expiry.IsZero() {
		return fallback
	}
	from := times.IssuedAt
	if from.IsZero() {
		from = now
	}
	return max(0, min(times.Expiry.Sub(from), maxLifetime))
}
