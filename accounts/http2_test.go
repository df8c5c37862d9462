package accounts

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// net/http can print what it sends by HTTP/2.
func TestHTTP2IsNotSpoken(t *testing.T) {
	var protocol atomic.Value
	srv := httptest.NewUnstartedServer(hearing(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocol.Store(r.Proto)
		_, _ = io.WriteString(w, `{"accessToken":"x"}`)
	})))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	if _, err := srv.Client().Get(srv.URL); err != nil || protocol.Load() != "HTTP/2.0" {
		t.Fatalf("the server speaks %v to others, %v", protocol.Load(), err)
	}
	c, err := New(FromAccountsURL(srv.URL), Options{RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Refresh(t.Context(), []byte("re")); err != nil || protocol.Load() != "HTTP/1.1" {
		t.Errorf("it was spoken to by %v, %v", protocol.Load(), err)
	}
}
