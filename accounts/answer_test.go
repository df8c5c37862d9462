package accounts

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// through makes a client whose calls go through a proxy on address.
func through(t *testing.T, scheme, address string, user *url.Userinfo) *Client {
	t.Helper()
	c := newTestClient(t, "https://bloq.example")
	c.http.Load().Transport.(*http.Transport).Proxy = http.ProxyURL(&url.URL{Scheme: scheme, Host: address, User: user})
	return c
}

// An endpoint that repeats in place of an answer what it was sent does not get
// that into our errors.
func TestAnAnswerThatIsNotHTTP(t *testing.T) {
	const secret = "the-refresh-token"
	for _, answer := range []string{
		"%s", "HTTP/1.1 %s", "HTTP/1.1 %s OK", "%s 200 OK", "HTTP/1.1 200 OK\r\n%s", "HTTP/1.1 200 OK\r\n %s", "HTTP/1.1 200 OK\r\n%s\r\n : x",
		"HTTP/1.1 200 OK\r\nContent-Length: %s", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: %s",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: %s", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n%s", "HTTP/1.1 101 %s\r\nUpgrade: %s", "HTTP/1.1 302 %s\r\nLocation: http://[%s",
	} {
		for _, proxied := range []bool{false, true} {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go func() { // ends with its one connection, or the listener
				c, err := l.Accept()
				if err != nil {
					return
				}
				if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.Copy(io.Discard, r.Body)
				}
				_, _ = io.WriteString(c, strings.ReplaceAll(answer, "%s", secret)+"\r\n\r\n")
				_ = c.Close()
			}()
			c := newTestClient(t, "http://"+l.Addr().String())
			if proxied {
				c = through(t, "http", l.Addr().String(), nil)
			}
			_, err = c.Refresh(t.Context(), []byte(secret))
			if err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("proxied %v, %q: %v", proxied, answer, err)
			}
			_ = l.Close()
		}
	}
}
