package accounts

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// proxyFor is http.ProxyFromEnvironment for calls in TLS, except that a proxy
// which cannot be used is an error. net/http ignores one that does not parse and
// calls the endpoint directly. It does not tell whether NO_PROXY names the
// endpoint, so the error comes all the same.
func proxyFor(r *http.Request) (*url.URL, error) {
	ip, err := netip.ParseAddr(r.URL.Hostname())
	if err == nil && ip.IsLoopback() || r.URL.Hostname() == "localhost" {
		return nil, nil // as in net/http
	}
	for _, name := range []string{"HTTPS_PROXY", "https_proxy"} { // in net/http's order
		value := os.Getenv(name)
		if value == "" {
			continue
		}
		if reason := checkProxyURL(value); reason != "" {
			return nil, &proxyVariableError{name, reason}
		}
		break
	}
	return http.ProxyFromEnvironment(r)
}

// A proxyVariableError quotes nothing of the value, which may hold a password.
type proxyVariableError struct{ variable, reason string }

func (e *proxyVariableError) Error() string { return e.variable + " " + e.reason }

const (
	badProxyURL    = "is not the URL of a proxy: write http://HOST:PORT, and in a user name or password %25 for %, %2F for / and %23 for #"
	badProxyScheme = "is not the URL of a proxy: its scheme must be http, https, socks5 or socks5h"
)

// checkProxyURL returns what is wrong with the value of a proxy variable, or "".
// It allows no path: net/http takes "http://user:1/2@proxy" for the host "user".
func checkProxyURL(value string) string {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return badProxyURL
	case !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme):
		return badProxyScheme
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return badProxyURL
		}
	}
	return ""
}

// checkProxyAnswer is http.Transport.OnProxyConnectResponse.
func checkProxyAnswer(_ context.Context, proxy *url.URL, _ *http.Request, a *http.Response) error {
	if a.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyAnswerError{proxy, a.StatusCode}
}

// A proxyAnswerError says that a proxy does not connect to the endpoint. It names
// the proxy without its user and password.
type proxyAnswerError struct {
	proxy  *url.URL
	status int
}

func (e *proxyAnswerError) Error() string {
	text := "the proxy " + e.proxy.Host + " answered " + strings.TrimSpace(strconv.Itoa(e.status)+" "+http.StatusText(e.status))
	if e.status == http.StatusProxyAuthRequired && e.proxy.User == nil {
		return text + ": the proxy's URL has no user and password"
	}
	return text
}
