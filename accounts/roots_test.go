package accounts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A server whose authority becomes known is called once more, at once, and gets the
// request once. One that stays unknown gets nothing.
func TestAnAuthorityThatIsKnownByNow(t *testing.T) {
	var requests, conns atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		b, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(b), `"refreshToken":"re"`) {
			t.Errorf("the body is %q", b)
		}
		_, _ = io.WriteString(w, `{"accessToken":"good"}`)
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are what is wanted
	srv.StartTLS()
	defer srv.Close()
	known, none := x509.NewCertPool(), x509.NewCertPool()
	known.AddCert(srv.Certificate())
	refusal := errors.New("/ca.pem can be written by others")
	for name, tt := range map[string]struct {
		before, now          *x509.CertPool
		refused              error
		asked, conns, served int64 // in two calls
		says                 string
	}{
		"trusted from the start":     {known, none, nil, 0, 2, 2, ""},
		"known by now":               {none, known, nil, 1, 3, 2, ""},
		"known by now, one refused":  {none, known, refusal, 1, 3, 2, ""},
		"the system's, unlike Go's":  {nil, known, nil, 1, 3, 2, ""},
		"unknown still":              {none, x509.NewCertPool(), nil, 2, 2, 0, "unknown authority"},
		"unknown still, one refused": {none, x509.NewCertPool(), refusal, 2, 2, 0, "unknown authority; " + refusal.Error()},
		"not read":                   {none, nil, refusal, 2, 2, 0, "unknown authority; " + refusal.Error()},
	} {
		requests.Store(0)
		conns.Store(0)
		var asked int64
		c, err := New(FromAccountsURL(srv.URL), Options{RootCAs: tt.before, Renew: func() (*x509.CertPool, error) {
			asked++
			return tt.now, tt.refused
		}})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			g, err := c.Refresh(t.Context(), []byte("re"))
			var e *Error
			switch {
			case tt.says == "" && (err != nil || string(g.AccessToken) != "good"):
				t.Errorf("%s: %v", name, err)
			case tt.says != "" && (!errors.As(err, &e) || !e.Unsent || !e.Untrusted || e.Class != Transient || !UnknownAuthority(err) || !strings.HasSuffix(err.Error(), tt.says)):
				t.Errorf("%s: %v", name, err)
			}
		}
		if asked != tt.asked || conns.Load() != tt.conns || requests.Load() != tt.served {
			t.Errorf("%s: read %d times, %d connections, %d requests; want %d, %d, %d", name, asked, conns.Load(), requests.Load(), tt.asked, tt.conns, tt.served)
		}
	}
	// Other failures read nothing.
	srv.Close()
	c, err := New(FromAccountsURL(srv.URL), Options{Renew: func() (*x509.CertPool, error) {
		t.Error("certificates were read for a server that is away")
		return nil, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Refresh(t.Context(), []byte("re")); err == nil {
		t.Error("a server that is away has answered")
	}
}

// An authority that was renewed with its old key is known by its old certificate, which
// has expired.
func TestAnAuthorityThatWasRenewed(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(c, by *x509.Certificate, start, end time.Duration) *x509.Certificate {
		c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), time.Now().Add(start), time.Now().Add(end)
		der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err = x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	authority := &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true}
	old, renewed := x509.NewCertPool(), x509.NewCertPool()
	old.AddCert(issue(authority, authority, -2*time.Hour, -time.Hour))
	renewed.AddCert(issue(authority, authority, -time.Hour, time.Hour))
	server := issue(&x509.Certificate{Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, authority, -time.Hour, time.Hour)

	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"accessToken":"good"}`)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: key}}}
	srv.StartTLS()
	defer srv.Close()
	now, refused := old, errors.New("/ca.pem can be written by others")
	c, err := New(FromAccountsURL(srv.URL), Options{RootCAs: old, Renew: func() (*x509.CertPool, error) { return now, refused }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Refresh(t.Context(), []byte("re")); err == nil || !strings.HasSuffix(err.Error(), "; "+refused.Error()) {
		t.Errorf("with the old certificate: %v", err)
	}
	now, refused = renewed, nil
	if g, err := c.Refresh(t.Context(), []byte("re")); err != nil || string(g.AccessToken) != "good" {
		t.Errorf("with the renewed one: %v", err)
	}
	if c.Trusts(old) || !c.Trusts(renewed) {
		t.Error("the client does not say what it trusts now")
	}
}
