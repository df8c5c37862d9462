package accounts

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The documented lifetimes, for tokens that do not tell their own.
const (
	AccessLifetime  = time.Hour
	AccountLifetime = 12 * time.Hour
)

// MaxLifetime is the longest lifetime that is believed of an access or account
// token.
const MaxLifetime = 24 * time.Hour

var errNotJWT = errors.New("not a JWT")

// Times are what a JWT says of itself (RFC 7519, iat and exp). A claim that is
// missing or absurd is the zero time, whatever the other is.
type Times struct {
	IssuedAt, Expiry time.Time
}

// TokenTimes reads a token without verifying it: Bloq does not publish the
// key. So nothing may be allowed on the strength of what it returns.
func TokenTimes(token []byte) (Times, error) {
	claims := jwt.MapClaims{}
	// Without its signature a token is worth nothing, so that the copies which the
	// parser makes need no clearing.
	end := bytes.LastIndexByte(token, '.')
	if end < 0 {
		return Times{}, errNotJWT
	}
	_, _, err := jwt.NewParser(jwt.WithJSONNumber()).ParseUnverified(string(token[:end])+".AA", claims)
	if err != nil {
		return Times{}, errNotJWT // the library's text may quote the token
	}
	return Times{instant(claims["iat"]), instant(claims["exp"])}, nil
}

// lastSecond is the last that RFC 3339 has room for.
const lastSecond = 253402300799

// instant compares before it converts: a float64 that no int64 holds becomes
// whatever the processor makes of it.
func instant(claim any) time.Time {
	n, _ := claim.(json.Number)
	seconds, err := n.Float64()
	if err != nil || seconds < 1 || seconds > lastSecond {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
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
	return max(0, min(times.Expiry.Sub(from), MaxLifetime))
}

// maxSkew is more than any two clocks differ, one that starts in 1970 included.
const maxSkew = 100 * 365 * 24 * time.Hour

// skew compares the moment at which a server answered, by its own word, with
// ours. Both the Date header (RFC 9110 section 6.6.1) and iat are whole seconds,
// cut and not rounded.
func skew(date string, accessToken []byte, ours time.Time) time.Duration {
	theirs, err := http.ParseTime(date)
	if err != nil {
		times, err := TokenTimes(accessToken)
		if err != nil || times.IssuedAt.IsZero() {
			return 0
		}
		theirs = times.IssuedAt
	}
	ahead := theirs.Add(time.Second / 2).Sub(ours).Round(time.Second)
	return max(-maxSkew, min(ahead, maxSkew))
}
