package accounts

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

var errDialed = errors.New("dialed")

// No call is made with a proxy variable that net/http ignores, or takes for
// another proxy than a person means.
func TestAProxyThatDoesNotParse(t *testing.T) {
	const user, password = "Ada-the-user", "Pa-the-password"
	for _, value := range []string{
		"http://Ada-the-user:Pa-the-password%@proxy.example:3128",
		"http://Ada-the-user:Pa-the-password%zz@proxy.example:3128",
		"Ada-the-user:Pa-the-password%@proxy.example:3128",
		"http://Ada-the-user:Pa-the-password @proxy.example:3128",
		"http://Ada-the-user:Pa-the-password\n@proxy.example:3128",
		"http://Ada-the-user:1/Pa-the-password@proxy.example:3128",
		"http://Ada-the-user:1#Pa-the-password@proxy.example:3128",
		"http://Ada-the-user:1?Pa-the-password@proxy.example:3128",
		"http://Ada-the-user:Pa-the-password@proxy.example:port",
		"http://Ada-the-user:Pa-the-password@proxy.example:0",
		"http://Ada-the-user:Pa-the-password@proxy.example:99999",
		"http://Ada-the-user:Pa-the-password@proxy.exa mple:3128",
		"http://Ada-the-user:Pa-the-password@proxy.example:3128\x00",
		"http://Ada-the-user:Pa-the-password@proxy.example:3128 ",
		" http://Ada-the-user:Pa-the-password@proxy.example:3128",
		"http://Ada-the-user:Pa-the-password@",
		"http://Ada-the-user:Pa-the-password@:3128",
		"ftp://Ada-the-user:Pa-the-password@proxy.example:21",
		"socks4://Ada-the-user:Pa-the-password@proxy.example:1080",
		"htp://Ada-the-user:Pa-the-password@proxy.example:3128",
		"//Ada-the-user:Pa-the-password@proxy.example:3128",
		"http:///proxy.example", "http://[::1", "%", "http://", "://",
	} {
		for _, variable := range []string{"HTTPS_PROXY", "https_proxy"} {
			if strings.Contains(value, "\x00") {
				continue // no environment holds it
			}
			t.Setenv("HTTPS_PROXY", "")
			t.Setenv("https_proxy", "http://proxy.example") // what stands second is not used
			t.Setenv(variable, value)
			var e *Error
			_, err := neverDials(t, "https://bloq.example").Refresh(t.Context(), []byte("re"))
			if !errors.As(err, &e) || e.Class != Configuration || !e.Unsent || errors.Is(err, errDialed) {
				t.Errorf("%s=%q: %v", variable, value, err)
				continue
			}
			text := err.Error()
			if !strings.HasPrefix(text, "refresh: "+variable+" is not the URL of a proxy: ") || strings.Contains(text, user) || strings.Contains(text, password) {
				t.Errorf("%s=%q: %v", variable, value, err)
			}
		}
	}
}

// neverDials makes a client whose attempts to connect fail with errDialed.
func neverDials(t *testing.T, url string) *Client {
	t.Helper()
	c, err := New(FromAccountsURL(url), Options{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errDialed }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The variables that concern no call of ours may hold anything.
func TestAProxyThatIsNotUsed(t *testing.T) {
	const bad = "http://user:%@proxy.example"
	for _, tt := range []struct{ variable, url string }{
		{"HTTP_PROXY", "https://bloq.example"}, // no call goes there in plain HTTP
		{"http_proxy", "http://127.0.0.1:1"},
		{"ALL_PROXY", "https://bloq.example"},
		{"HTTPS_PROXY", "http://127.0.0.1:1"},
		{"HTTPS_PROXY", "https://127.0.0.1:1"},
		{"HTTPS_PROXY", "https://[::1]:1"},
		{"HTTPS_PROXY", "https://localhost:1"},
	} {
		for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
			t.Setenv(name, "")
		}
		t.Setenv(tt.variable, bad)
		if _, err := neverDials(t, tt.url).Refresh(t.Context(), []byte("re")); !errors.Is(err, errDialed) {
			t.Errorf("%s, %s: %v", tt.variable, tt.url, err)
		}
	}
}

func TestProxiesThatCanBeUsed(t *testing.T) {
	for _, value := range []string{
		"proxy.example", "proxy.example:3128", "10.0.0.1:3128", "[::1]:3128", "user:pass@proxy.example:3128", "user@proxy.example",
		"http://proxy.example", "http://proxy.example/", "HTTPS://proxy.example:443", "socks5://user:p%25%2f%23@proxy.example", "socks5h://[fe80::1]:1080/",
	} {
		if reason := checkProxyURL(value); reason != "" {
			t.Errorf("%s %s", value, reason)
		}
	}
}

// What a proxy answers is told by its number. Its own words may repeat the
// password that it was sent.
func TestAProxyThatRefuses(t *testing.T) {
	var sent atomic.Value
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent.Store(r.Header.Get("Proxy-Authorization"))
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "HTTP/1.1 "+r.UserAgent()+" secret-words\r\nX: secret-words\r\n\r\nsecret-words")
	}))
	defer srv.Close()
	proxy := srv.Listener.Addr().String()
	const lacks = ": the proxy's URL has no user and password"
	for _, tt := range []struct {
		status, says string
		user         *url.Userinfo
	}{
		{"407", " answered 407 Proxy Authentication Required" + lacks, nil},
		{"407", " answered 407 Proxy Authentication Required", url.UserPassword("Ada", "secret-words")},
		{"403", " answered 403 Forbidden", nil},
		{"502", " answered 502 Bad Gateway", url.UserPassword("Ada", "secret-words")},
		{"299", " answered 299", nil},
	} {
		c := through(t, "http", proxy, tt.user)
		c.http.Load().Transport.(*http.Transport).ProxyConnectHeader = http.Header{"User-Agent": {tt.status}}
		_, err := c.Refresh(t.Context(), []byte("re"))
		var e *Error
		if !errors.As(err, &e) || e.Class != Transient || !e.Unsent || err.Error() != "refresh: the proxy "+proxy+tt.says {
			t.Errorf("%s: %v", tt.status, err)
		}
		if (tt.user != nil) != (sent.Load() != "") {
			t.Errorf("%s: the proxy was sent %q", tt.status, sent.Load())
		}
	}
}

// A request that no proxy has passed on was not sent.
func TestAProxyThatIsAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy := l.Addr().String()
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(c, make([]byte, 3)) // of SOCKS: how to log in
			_, _ = io.WriteString(c, "\x05\xff")   // not at all
			_ = c.Close()
		}
	}()
	refuses := func(scheme string) {
		t.Helper()
		_, err := through(t, scheme, proxy, nil).Refresh(t.Context(), []byte("re"))
		var e *Error
		if !errors.As(err, &e) || e.Class != Transient || !e.Unsent || !strings.Contains(err.Error(), proxy) {
			t.Errorf("%s: %v, %#v", scheme, err, e)
		}
	}
	refuses("socks5")
	_ = l.Close()
	for _, scheme := range []string{"http", "https", "socks5"} {
		refuses(scheme)
	}
}
