package profile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/accounts/sandbox"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

const canary = "the-refresh-token-of-this-test"

// A recordedWire is what a listener has received, over all connections.
type recordedWire struct {
	mu      sync.Mutex
	conns   int
	raw     bytes.Buffer // as it came
	request bytes.Buffer // what TLS made of it
}

func (w *recordedWire) read(f func(*recordedWire)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w)
}

// A tap copies what is read from a connection.
type tap struct {
	net.Conn
	w  *recordedWire
	to *bytes.Buffer
}

func (c tap) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.w.read(func(*recordedWire) { c.to.Write(p[:n]) })
	return n, err
}

// listenTo is a real listener that answers every request with 503, in TLS if
// config is not nil. Its end is the test's.
func listenTo(t *testing.T, config *tls.Config) (address string, w *recordedWire) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w = &recordedWire{}
	var served sync.WaitGroup
	served.Go(func() { // ends when the test closes the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.read(func(w *recordedWire) { w.conns++ })
			served.Go(func() { w.answer(c, config) }) // ends with the connection, in 5 s
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		served.Wait()
	})
	return l.Addr().String(), w
}

// answer waits for one whole request; a client that has sent something else
// goes away by itself.
func (w *recordedWire) answer(c net.Conn, config *tls.Config) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	c = tap{c, w, &w.raw}
	if config != nil {
		c = tap{tls.Server(c, config), w, &w.request}
	}
	buf := make([]byte, 64<<10)
	for n := 0; n < len(buf); {
		m, err := c.Read(buf[n:])
		if n += m; err != nil {
			return // a failed handshake too
		}
		if bytes.HasSuffix(buf[:n], []byte("}")) {
			_, _ = c.Write([]byte("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"))
			return
		}
	}
}

// An authority makes certificates that those who trust it accept.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{t: t}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	pair := a.sign(a.cert)
	a.key, a.cert = pair.PrivateKey.(*ecdsa.PrivateKey), pair.Leaf
	return a
}

// issue makes a certificate of a server on 127.0.0.1, as change would have it.
func (a authority) issue(change func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(c)
	return a.sign(c)
}

// sign signs c with a's key, or with c's own if a has none yet.
func (a authority) sign(c *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// Bad TLS is an outage that is told in clear words, and never bypassed: the
// endpoint gets no byte of a request.
func TestBadTLS(t *testing.T) {
	trusted, alien := newAuthority(t), newAuthority(t)
	good := trusted.issue(func(*x509.Certificate) {})
	expired := trusted.issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	misnamed := trusted.issue(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} })
	attempts := 0
	for _, tt := range []struct {
		name      string
		config    *tls.Config
		untrusted bool
		says      string
	}{
		{"expired", &tls.Config{Certificates: []tls.Certificate{expired}}, true, "certificate has expired"},
		{"unknown authority", &tls.Config{Certificates: []tls.Certificate{alien.issue(func(*x509.Certificate) {})}}, true, "certificate signed by unknown authority"},
		{"wrong name", &tls.Config{Certificates: []tls.Certificate{misnamed}}, true, "certificate is valid for 127.0.0.2, not 127.0.0.1"},
		{"TLS 1.1", &tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false, "tls: protocol version not supported"},
		// Without this the listener may be what is deaf.
		{"good", &tls.Config{Certificates: []tls.Certificate{good}}, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address, w := listenTo(t, tt.config)
			options := accounts.Options{RootCAs: x509.NewCertPool()}
			options.RootCAs.AddCert(trusted.cert)
			l := canaryLogin(t, "https://"+address, options)
			for range 3 {
				attempts++
				_, err := l.exchange(t.Context())
				var f *refresher.Failure
				var e *accounts.Error
				if !errors.As(err, &f) || f.Class != refresher.Transient || !errors.As(err, &e) || e.Untrusted != tt.untrusted {
					t.Errorf("%v", err)
				}
			}
			if tt.name != "good" {
				attempts++
				isTold(t, l, tt.says, tt.untrusted)
			}
			w.read(func(w *recordedWire) {
				if w.conns < 3 || w.raw.Len() == 0 || strings.Contains(w.raw.String(), canary) {
					t.Errorf("%d connections, %d bytes on the recordedWire", w.conns, w.raw.Len())
				}
				if got := w.request.String(); tt.name == "good" != strings.Contains(got, canary) || tt.name != "good" && got != "" {
					t.Errorf("the endpoint received %q", got)
				}
			})
		})
	}
	t.Logf("4 ways, %d attempts, no byte of a request", attempts)
}

// canaryLogin holds the canary for the endpoint at url.
func canaryLogin(t *testing.T, url string, options accounts.Options) *login {
	t.Helper()
	client, err := accounts.New(accounts.FromAccountsURL(url), options)
	if err != nil {
		t.Fatal(err)
	}
	return newTestLogin(client, store.NewMemory(), store.Item{RefreshToken: store.NewSecret([]byte(canary))})
}

// isTold runs a whole profile on l while there is a token: that is served, and
// status and events say why it is not replaced.
func isTold(t *testing.T, l *login, says string, untrusted bool) {
	t.Helper()
	place := newPlace(t)
	p, now := place.open(t).candidate("default"), time.Now()
	grant := &refresher.Grant{AccessToken: []byte("at hand"), IssuedAt: now, Expiry: now.Add(time.Hour)}
	do(t, p.replace(func(*state) (plan, error) { return plan{login: l, from: inherited{grant: grant}}, nil }))
	_ = p.Refresh(t.Context()) // the status says what came of it
	token, err := p.Token(t.Context(), 0)
	if err != nil || string(token.Value) != "at hand" {
		t.Errorf("the token at hand: %v, %v", token, err)
	}
	if s := p.Status().Snapshot; s.Class != refresher.Transient || !strings.Contains(s.Err.Error(), says) {
		t.Errorf("status says %v, %v", s.Class, s.Err)
	}
	events := place.of(Published)
	if len(events) == 0 {
		t.Fatal("nothing was published")
	}
	var e *accounts.Error
	if err := events[0].Current.Err; !errors.As(err, &e) || e.Untrusted != untrusted || !strings.Contains(err.Error(), says) {
		t.Errorf("told of %v", err)
	}
}

// A redirect is not followed, and what it names is not even called: it is
// another origin.
func TestTheOtherOriginSeesNothing(t *testing.T) {
	api, err := sandbox.New(sandbox.Config{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(api)
	defer srv.Close()
	other, w := listenTo(t, nil)
	l := canaryLogin(t, srv.URL, accounts.Options{})
	count := 0
	for _, status := range []int{300, 301, 302, 303, 305, 307, 308} {
		for _, place := range []string{"http://" + other + "/auth/token", "//" + other, "https://" + other, "http://user:pass@" + other} {
			count++
			err := api.AddFault(sandbox.Fault{
				Route: "POST /auth/token", Kind: "status", Status: status, Times: 1, Header: map[string]string{"Location": place},
			})
			if err != nil {
				t.Fatal(err)
			}
			_, err = l.exchange(t.Context())
			var e *accounts.Error
			if !errors.As(err, &e) || e.Class != accounts.Transient || e.Status != status {
				t.Fatalf("%d to %s: %v", status, place, err)
			}
		}
	}
	w.read(func(w *recordedWire) {
		if w.conns != 0 || w.raw.Len() != 0 {
			t.Errorf("the other origin got %d connections and %q", w.conns, w.raw.String())
		}
	})
	// Who sends there is seen.
	_, _ = canaryLogin(t, "http://"+other, accounts.Options{}).exchange(t.Context())
	w.read(func(w *recordedWire) {
		if w.conns != 1 || !strings.Contains(w.raw.String(), canary) {
			t.Errorf("the listener is deaf: %d connections, %q", w.conns, w.raw.String())
		}
	})
	if got := api.Stats().Grants["refreshToken"]; got != count {
		t.Errorf("%d exchanges for %d redirects", got, count)
	}
	t.Logf("%d redirects: no connection elsewhere", count)
}
