package accounts

import (
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
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
