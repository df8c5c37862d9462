// Package accounts is a client of the Bloq Accounts API: login, client keys,
// and the two grants of the token endpoint.
//
// Each call is made once. Nothing here repeats a request or follows a
// redirect, because a refresh token may be good for a single use and belongs
// to one origin. Only if TLS failed because the server's authority is unknown or has
// expired, and so nothing was sent, is the call made again, if that authority is
// trusted by then. Credentials go over https, or over http to a literal loopback
// address, and nowhere else. Errors are *Error where the endpoint or the way
// to it failed.
package accounts

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bloq-agent/accounts/loopback"
)

const (
	callTimeout = 20 * time.Second // one call, from dialling to the last byte
	dialTimeout = 5 * time.Second
	tlsTimeout  = 5 * time.Second
	maxBody     = 1 << 20 // bytes of an answer
	maxToken    = 64 << 10
)

var dialer = net.Dialer{Timeout: dialTimeout}

// Options are what a Client may be given. The zero value will do.
type Options struct {
	UserAgent string
	// RootCAs are trusted instead of the system's.
	RootCAs *x509.CertPool
	// Renew, if set, reads which certificates are trusted now. The error names what
	// it refused to read; the pool is nil if it has read nothing.
	Renew func() (*x509.CertPool, error)
	// DialContext replaces the network, for tests in virtual time.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the wall clock; nil for time.Now.
	Now func() time.Time
}

// A Client talks to one environment.
type Client struct {
	endpoints Endpoints
	options   Options
	http      atomic.Pointer[http.Client] // another when other certificates are trusted
}

// New makes a client, or says what is wrong with the endpoints.
func New(e Endpoints, o Options) (*Client, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Client{endpoints: e, options: o}
	c.http.Store(newHTTP(o))
	return c, nil
}

func newHTTP(o Options) *http.Client {
	return &http.Client{
		// A redirect would replay a POST with the refresh token to whatever
		// origin it names (307, 308). It is an answer like any other here.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     transport(o),
	}
}

// transport is never http.DefaultTransport, which speaks HTTP/2.
func transport(o Options) *http.Transport {
	dial, plainDial := o.DialContext, o.DialContext
	if dial == nil {
		dial, plainDial = dialer.DialContext, loopback.Dialer(dialer.DialContext)
	}
	// With GODEBUG=http2debug=2, net/http prints each header and body that it
	// sends by HTTP/2.
	var http1 http.Protocols
	http1.SetHTTP1(true)
	t := &http.Transport{
		// The variables are the user's own decision about the way out; a
		// proxy sees a TLS connection and no secret. Loopback never uses it.
		Proxy:                  proxyFor,
		OnProxyConnectResponse: checkProxyAnswer,
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		TLSHandshakeTimeout:    tlsTimeout,
		// A kept connection saves nothing at two calls an hour, and net/http
		// repeats a request on one that turns out to be dead.
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		Protocols:              &http1,
	}
	// Plain HTTP is for loopback only, where no certificate names the server:
	// any user could listen there while the endpoint is stopped.
	plain := t.Clone()
	plain.Proxy, plain.DialContext = nil, plainDial
	t.RegisterProtocol("http", plain)
	return t
}

// A Grant is what a login or the token endpoint returned.
type Grant struct {
	AccessToken []byte // of login: the Account Access Token
	// RefreshToken is nil if the answer had none. It is there even beside an error,
	// if the answer is Malformed for another reason: the endpoint may have replaced
	// the one that was spent.
	RefreshToken []byte
	// RefreshErr is why the refresh token of the answer cannot be used; nil if it
	// can, or if there is none. The one that was spent may have been replaced.
	RefreshErr error
	// IssuedAt is when the request was sent, by our wall clock, and Expiry is
	// that plus the token's own lifetime: the server's clock and ours may differ.
	// Both are cut to the second, as iat and exp are: a token issued at 0.9 s
	// ends at exp, and not 0.9 s after it.
	IssuedAt, Expiry time.Time
	// RefreshExpiry is when the refresh token says it ends; zero if unknown.
	RefreshExpiry time.Time
	// Skew is how far the server's clock is ahead of ours, to the second and at
	// most maxSkew. It is for people to see: nothing is scheduled by it.
	Skew time.Duration
}

// Format keeps the tokens out of logs.
func (g Grant) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "grant([redacted], expiry "+g.Expiry.Format(time.RFC3339)+")")
}

// A Key is a pair of client keys. Secret is nil but for a pair just created.
type Key struct {
	ID        string
	Secret    []byte
	CreatedAt time.Time
}

// Format keeps the secret out of logs.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "client keys "+k.ID) }

// Login buys an account token. User is a user ID or an e-mail address.
func (c *Client) Login(ctx context.Context, user string, password []byte) (Grant, error) {
	if strings.Contains(user, ":") {
		return Grant{}, errors.New("a user ID or e-mail holds no colon") // RFC 7617 section 2
	}
	g, err := c.grant(ctx, call{op: "login", method: http.MethodPost, url: c.endpoints.Login, user: user, password: password}, AccountLifetime)
	var e *Error
	if errors.As(err, &e) && e.Class == Refused {
		e.Err = errors.New("wrong user or password")
	}
	return g, err
}

// ClientCredentials buys a refresh token, and an access token with it.
func (c *Client) ClientCredentials(ctx context.Context, clientID string, clientSecret []byte) (Grant, error) {
	g, err := c.grant(ctx, call{
		op: "client credentials", method: http.MethodPost, url: c.endpoints.Token,
		body: map[string]any{"grantType": "clientCredentials", "clientId": clientID, "clientSecret": token(clientSecret)},
	}, AccessLifetime)
	var e *Error
	if errors.As(err, &e) && e.Class == Refused {
		e.Err = errors.New("wrong client ID or client secret")
	}
	return g, err
}

// Refresh buys an access token. It spends refreshToken: if the grant holds
// another, the old one must not be used again.
func (c *Client) Refresh(ctx context.Context, refreshToken []byte) (Grant, error) {
	return c.grant(ctx, call{
		op: "refresh", method: http.MethodPost, url: c.endpoints.Token,
		body: map[string]any{"grantType": "refreshToken", "refreshToken": token(refreshToken)},
	}, AccessLifetime)
}

// CreateKey makes a pair of client keys. Its secret cannot be had again.
func (c *Client) CreateKey(ctx context.Context, accountToken []byte) (Key, error) {
	var k Key
	var secret token
	const op = "create client keys"
	err := c.do(ctx, call{op: op, method: http.MethodPost, url: c.endpoints.Keys, bearer: accountToken},
		members{"clientId": &k.ID, "clientSecret": &secret, "createdAt": (*moment)(&k.CreatedAt)})
	if err == nil && (k.ID == "" || len(secret) == 0) {
		err = &Error{Op: op, Class: Malformed, Err: errors.New("the answer holds no client ID and secret")}
	}
	k.Secret = secret
	return k, err
}

// ListKeys lists the client keys of the account, without their secrets.
func (c *Client) ListKeys(ctx context.Context, accountToken []byte) ([]Key, error) {
	var keys keyList
	err := c.do(ctx, call{op: "list client keys", method: http.MethodGet, url: c.endpoints.Keys, bearer: accountToken}, &keys)
	return keys, err
}

// DeleteKey deletes client keys.
func (c *Client) DeleteKey(ctx context.Context, accountToken []byte, id string) error {
	if !isWord(id) || strings.Trim(id, ".") == "" {
		return errors.New("that is no client ID")
	}
	return c.do(ctx, call{op: "delete client keys", method: http.MethodDelete, url: c.endpoints.Keys + "/" + url.PathEscape(id), bearer: accountToken}, nil)
}

// grant makes a call that returns tokens.
func (c *Client) grant(ctx context.Context, k call, lifetime time.Duration) (Grant, error) {
	sent := c.options.Now().Round(0)
	var access token
	var refresh optional
	k.header = http.Header{}
	err := c.do(ctx, k, members{"accessToken": &access, "refreshToken": &refresh})
	g := Grant{RefreshToken: refresh.token, RefreshErr: refresh.err, IssuedAt: sent.Truncate(time.Second)}
	if times, err := TokenTimes(refresh.token); err == nil {
		g.RefreshExpiry = times.Expiry
	}
	if err == nil && len(access) == 0 {
		err = &Error{Op: k.op, Class: Malformed, Err: errors.New("the answer holds no access token")}
	}
	if err != nil {
		return g, err
	}
	g.AccessToken, g.Expiry = access, g.IssuedAt.Add(Lifetime(access, g.IssuedAt, lifetime))
	g.Skew = skew(k.header.Get("Date"), access, sent.Add(c.options.Now().Sub(sent)/2))
	return g, nil
}

// A call is one request.
type call struct {
	op, method, url string
	user            string // with password: HTTP Basic
	password        []byte
	bearer          []byte
	body            any
	header          http.Header // if not nil: filled with the answer's
}

func (k call) request(ctx context.Context) (*http.Request, error) {
	if _, err := parseURL(k.url); err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, k.method, k.url, nil)
	if err != nil {
		return nil, err
	}
	if k.body != nil {
		b, err := json.Marshal(k.body)
		if err != nil {
			return nil, err
		}
		// No GetBody: net/http must have no means to send it twice.
		r.Body, r.ContentLength = &wiping{r: bytes.NewReader(b), b: b}, int64(len(b))
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Accept", "application/json")
	switch {
	case k.user != "":
		r.SetBasicAuth(k.user, string(k.password))
	case k.bearer != nil:
		r.Header.Set("Authorization", "Bearer "+string(k.bearer))
	}
	return r, nil
}

// wiping is a request's body that is cleared when it was sent. net/http closes
// the body of a call that is cancelled while it may still be reading it.
type wiping struct {
	mu sync.Mutex
	r  *bytes.Reader
	b  []byte
}

func (w *wiping) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.r.Read(p)
}

func (w *wiping) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.b)
	w.r.Reset(nil)
	return nil
}

// do makes the call and decodes the body of a success with into, unless that
// is nil.
func (c *Client) do(ctx context.Context, k call, into answer) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a, err := c.send(ctx, k)
	if err != nil {
		return err
	}
	defer func() { _ = a.Body.Close() }()
	if k.header != nil {
		maps.Copy(k.header, a.Header)
	}
	body, err := io.ReadAll(io.LimitReader(a.Body, maxBody+1))
	defer clear(body)
	switch {
	case err != nil:
		return failedCall(k.op, fmt.Errorf("the answer broke off: %w", withoutAnswer(unexpected(err))))
	case len(body) > maxBody:
		return &Error{Op: k.op, Class: Malformed, Status: a.StatusCode, Err: errors.New("the answer is longer than 1 MiB")}
	case a.StatusCode < 200 || a.StatusCode > 299:
		return statusError(k.op, a.StatusCode, a.Header, body, c.options.Now())
	case into == nil:
		return nil
	}
	return decode(k.op, a.StatusCode, body, into)
}

func unexpected(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}
