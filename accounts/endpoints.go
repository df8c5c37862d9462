package accounts

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// Endpoints are the URLs of one Bloq environment. Each can be overridden alone.
type Endpoints struct {
	Login string // POST, HTTP Basic: the only URL that a password is sent to
	Token string // POST: both grants
	Keys  string // client keys
	Nodes string // base of the Nodes API; nothing is sent there from here
}

// Environment is one of the presets: prod, staging, local. Bloq's sources
// contradict each other on where to log in; prod takes the URL of its
// "Authentication" page for that and accounts.bloq.cloud for the rest.
func Environment(name string) (Endpoints, error) {
	var e Endpoints
	switch name {
	case "prod":
		e = FromAccountsURL("https://accounts.bloq.cloud")
		e.Login = "https://api.bloq.com/auth/login"
		e.Nodes = "https://nodes.bloq.cloud"
	case "staging":
		e = FromAccountsURL("https://accounts.bloqclouddev.com")
		e.Nodes = "https://nodes.bloqclouddev.com"
	case "local":
		e = FromAccountsURL("http://127.0.0.1:4000")
		e.Nodes = "http://127.0.0.1:4002"
	default:
		return Endpoints{}, fmt.Errorf("environment %q: prod, staging or local", name)
	}
	return e, nil
}

// FromAccountsURL derives the URLs from that of an Accounts service.
func FromAccountsURL(u string) Endpoints {
	u = strings.TrimRight(u, "/")
	return Endpoints{Login: u + "/auth", Token: u + "/auth/token", Keys: u + "/users/me/client-keys", Nodes: u}
}

// Override is e with the URLs that o has.
func (e Endpoints) Override(o Endpoints) Endpoints {
	for _, f := range []struct{ to, from *string }{
		{&e.Login, &o.Login}, {&e.Token, &o.Token}, {&e.Keys, &o.Keys}, {&e.Nodes, &o.Nodes},
	} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	return e
}

// Check says what is wrong with the URLs, all of it. An empty one is not.
func (e Endpoints) Check() error {
	var errs []error
	for _, f := range []struct{ name, url string }{
		{"login", e.Login}, {"token", e.Token}, {"keys", e.Keys}, {"nodes", e.Nodes},
	} {
		if f.url == "" {
			continue
		}
		if err := CheckURL(f.url); err != nil {
			errs = append(errs, fmt.Errorf("%s url: %w", f.name, err))
		}
	}
	return errors.Join(errs...)
}

// CheckURL allows https, and http to a literal loopback address. A name like
// localhost is refused for http, because what it resolves to is for others to
// say.
func CheckURL(raw string) error {
	_, err := parseURL(raw)
	return err
}

func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "" || strings.ContainsAny(raw, " \t\r\n"):
		return nil, fmt.Errorf("%.200q is not an absolute URL", raw)
	case u.User != nil:
		return nil, errors.New("must not hold a user or password") // not quoted: it may be one
	case u.Fragment != "" || u.RawQuery != "" || u.ForceQuery:
		return nil, fmt.Errorf("%.200q must have no query and no fragment", raw)
	case u.Hostname() == "":
		return nil, fmt.Errorf("%.200q has no host", raw)
	}
	switch u.Scheme {
	case "https":
		return u, nil
	case "http":
		ip, err := netip.ParseAddr(u.Hostname())
		if err == nil && ip.IsLoopback() {
			return u, nil
		}
		if u.Hostname() == "localhost" {
			return nil, fmt.Errorf("%.200q is plain http to a name: write 127.0.0.1", raw)
		}
		return nil, fmt.Errorf("%.200q is plain http: only https, or http to 127.0.0.1 or [::1]", raw)
	}
	return nil, fmt.Errorf("%.200q is not https", raw)
}

// Origin is the scheme, host and port of a URL, in lower case and without the
// scheme's own port (RFC 6454).
func Origin(raw string) (string, error) {
	u, err := parseURL(raw)
	if err != nil {
		return "", err
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		port = ""
	}
	switch {
	case port != "":
		host = net.JoinHostPort(host, port)
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	return u.Scheme + "://" + host, nil
}
