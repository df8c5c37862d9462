package accounts

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"bloq-agent/accounts/loopback"
)

// Class says what kind of failure a call met.
type Class uint8

// The classes.
const (
	// Transient repairs itself: network, overload, a captive portal's page.
	Transient Class = iota
	// Refused is a bare 401 or 403: wrong credentials, or a gateway that does
	// not know better.
	Refused
	// InvalidGrant is the endpoint's explicit word that the refresh token is dead.
	InvalidGrant
	// Configuration is a client that the endpoint does not accept. If the request
	// was unsent, it is a proxy variable that cannot be used.
	Configuration
	// Malformed is an answer that makes no sense.
	Malformed
	// Unknown is any other 4xx.
	Unknown
)

// An Error is why a call failed. Its text is one line of printable characters
// and holds nothing that the server said, except for a code word and the names in
// a certificate.
type Error struct {
	Op     string // "login", "refresh", …
	Class  Class
	Status int    // HTTP status, or 0 without an answer
	Code   string // the server's code word, if it gave one
	// RetryAfter is the server's wish (RFC 9110 section 10.2.3), or 0. It is at
	// most maxRetryAfter.
	RetryAfter time.Duration
	// Unsent says that no byte of the request was sent: there was no connection.
	Unsent bool
	// Untrusted says that the server was not accepted: its certificate, or the
	// user that it runs as.
	Untrusted bool
	Err       error
}

func (e *Error) Error() string {
	text := e.Op + ": "
	switch {
	case e.Err != nil:
		text += printable(e.Err.Error())
	default:
		text += strings.TrimSpace(strconv.Itoa(e.Status) + " " + http.StatusText(e.Status))
	}
	if e.Code != "" {
		text += " (" + e.Code + ")"
	}
	return text
}

// printable is s for a terminal and a line. A certificate that is not for our
// host is told by the names that it holds, and those are whoever's who made it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// Unwrap is the cause, if there is one beside the status.
func (e *Error) Unwrap() error { return e.Err }

// failedCall classifies an error of net/http.
func failedCall(op string, err error) *Error {
	// url.Error repeats the URL, which the reader knows.
	unsent := neverConnected(err)
	var u *url.Error
	if errors.As(err, &u) {
		if u.Timeout() {
			return &Error{Op: op, Unsent: unsent, Err: errors.New("no answer in time")}
		}
		err = u.Err
	}
	e := &Error{Op: op, Unsent: unsent, Err: withoutAnswer(err)}
	var variable *proxyVariableError
	if errors.As(err, &variable) {
		e.Class = Configuration
	}
	var bad *tls.CertificateVerificationError
	var alien x509.UnknownAuthorityError
	var foreign *loopback.Error
	e.Untrusted = errors.As(err, &bad) || errors.As(err, &alien) || errors.As(err, &foreign)
	e.Unsent = e.Unsent || e.Untrusted
	return e
}

// withoutAnswer replaces an error in which net/http quotes what it received in
// place of HTTP. An endpoint that repeats the request would get the refresh token
// into our log.
func withoutAnswer(err error) error {
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	var header textproto.ProtocolError
	switch {
	case errors.As(err, &op), errors.As(err, &certificate):
		return err
	case errors.As(err, &header), strings.Contains(err.Error(), `"`):
		return errors.New("the answer is not HTTP")
	}
	return err
}

// neverConnected reports whether err says that there was no connection to the
// endpoint, directly or through a proxy.
func neverConnected(err error) bool {
	var variable *proxyVariableError
	var proxy *proxyAnswerError
	var op *net.OpError
	return errors.As(err, &variable) || errors.As(err, &proxy) ||
		errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect" || op.Op == "socks connect")
}

// statusError classifies an answer that is not a success.
func statusError(op string, status int, header http.Header, body []byte, now time.Time) *Error {
	e := &Error{Op: op, Status: status, Code: codeOf(body), RetryAfter: retryAfter(header.Get("Retry-After"), theirs(header, now))}
	switch {
	case status < 400, status >= 500, status == 408, status == 425, status == 429:
		e.Class = Transient
	case e.Code == "invalid_grant", e.Code == "bad_refresh_token":
		e.Class = InvalidGrant
	case e.Code == "invalid_client", e.Code == "unauthorized_client", e.Code == "unsupported_grant_type":
		e.Class = Configuration
	case status == 401, status == 403:
		e.Class = Refused
	default:
		e.Class = Unknown
	}
	return e
}

// codeOf finds the code word of an error body: OAuth's "error" (RFC 6749
// section 5.2) or Bloq's "code".
func codeOf(body []byte) string {
	var oauth, bloq any
	if (members{"error": &oauth, "code": &bloq}).decode(body) != nil {
		return ""
	}
	for _, v := range []any{oauth, bloq} {
		if s, ok := v.(string); ok && isWord(s) {
			return s
		}
	}
	return ""
}

// isWord keeps whatever else a server may put there out of our log.
func isWord(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.') {
			return false
		}
	}
	return true
}

// theirs is the moment by the server's own clock, which a date in Retry-After is
// of; ours is as good where it does not tell.
func theirs(header http.Header, ours time.Time) time.Time {
	if t, err := http.ParseTime(header.Get("Date")); err == nil {
		return t
	}
	return ours
}

const maxRetryAfter = 24 * time.Hour

// retryAfter reads seconds or a date. What is neither, or in the past, is 0. A
// number that no integer holds is still a wish to wait.
func retryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseUint(s, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(0, min(at.Sub(now), maxRetryAfter))
	}
	return 0
}
