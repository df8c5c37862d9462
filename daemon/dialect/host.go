package dialect

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// A Target is a server that a tool names. The zero value is none that any
// Hosts allow.
type Target struct {
	scheme string // https or http
	host   string // in lower case; an address in its canonical form, without brackets
	port   uint16
}

// nowhere is the target of a question that names a server in a way that makes
// no sense.
var nowhere = &Target{}

// ParseTarget reads an absolute URL. It is strict, and returns nowhere for what
// browsers and libraries read in more than one way: a user before the host, a
// query or a backslash right after it, a trailing dot, percent signs in it,
// addresses in odd forms. Blanks, control characters and letters that are not
// ASCII are refused anywhere, because some readers drop them before they look.
func ParseTarget(raw string) *Target {
	_, rest, _ := strings.Cut(raw, "://")
	authority, _, _ := strings.Cut(rest, "/")
	// net/url ends the host at a ? or a # too. Others end it at the / only.
	u, err := url.Parse(raw)
	if err != nil || u.Host != authority || !isPlain(raw) {
		return nowhere
	}
	return target(u.Scheme, u.Host)
}

// isPlain reports whether s is visible ASCII without a backslash.
func isPlain(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			return false
		}
	}
	return true
}

// target is of a scheme and a host with or without a port.
func target(scheme, hostport string) *Target {
	t := Target{scheme: scheme}
	switch scheme {
	case "https":
		t.port = 443
	case "http":
		t.port = 80
	default:
		return nowhere
	}
	var err error
	if t.host, t.port, err = splitHost(hostport, t.port); err != nil {
		return nowhere
	}
	return &t
}

var (
	errHost = errors.New("is no host name or address")
	errPort = errors.New("has no port between 1 and 65535 after the colon")
)

// splitHost reads HOST, HOST:PORT, [IPv6] or [IPv6]:PORT.
func splitHost(s string, port uint16) (string, uint16, error) {
	host, rest := s, ""
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, rest, ok = strings.Cut(inner, "]")
		a, err := netip.ParseAddr(inner)
		// A zone is this machine's own affair, and an IPv4 address in IPv6's
		// clothes is another spelling of something that may be elsewhere allowed.
		if !ok || err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" {
			return "", 0, errHost
		}
		host = a.String()
	} else {
		if i := strings.IndexByte(s, ':'); i >= 0 {
			host, rest = s[:i], s[i:]
		}
		if host = lower(host); !isName(host) {
			return "", 0, errHost
		}
	}
	if rest == "" {
		return host, port, nil
	}
	n, err := strconv.ParseUint(rest[1:], 10, 16)
	if err != nil || rest[0] != ':' || n == 0 || rest[1] == '0' || rest[1] == '+' {
		return "", 0, errPort
	}
	return host, uint16(n), nil
}

// lower is for ASCII alone: strings.ToLower makes a k of the sign for Kelvin.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// isName reports whether s is a host name in lower case, or an IPv4 address.
// A name whose last label is a number is an address to some and a name to
// others (127.1, 0x7f.1), so it must be an address to all.
func isName(s string) bool {
	if len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		if strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	if last := labels[len(labels)-1]; last[0] >= '0' && last[0] <= '9' {
		a, err := netip.ParseAddr(s)
		return err == nil && a.Is4()
	}
	return true
}

func (t *Target) isLoopback() bool {
	a, err := netip.ParseAddr(t.host)
	return err == nil && a.IsLoopback()
}

// Hosts are the servers that a profile's tokens may be given to.
type Hosts []pattern

// A pattern is one entry: a host, or any host below one, and a port.
type pattern struct {
	host  string // without "*."
	below bool   // hosts below it, and never itself
	port  uint16
}

// ParseHost reads an entry: HOST or *.HOST, with or without a port. Without one
// it is https's.
func ParseHost(s string) (Hosts, error) {
	host, below := strings.CutPrefix(s, "*.")
	name, port, err := splitHost(host, 443)
	_, addrErr := netip.ParseAddr(name)
	switch {
	case strings.Contains(s, "/"):
		return nil, errors.New("is a host, with or without a port, and no URL")
	case err != nil:
		return nil, err
	case below && (addrErr == nil || !strings.Contains(name, ".")):
		return nil, errors.New("is too wide: a star needs two labels after it, like *.bloq.cloud")
	}
	return Hosts{{host: name, below: below, port: port}}, nil
}

// HostOf is the one entry for the server of a URL, or none.
func HostOf(raw string) Hosts {
	t := ParseTarget(raw)
	if t == nowhere {
		return nil
	}
	return Hosts{{host: t.host, port: t.port}}
}

// Allows reports whether t may be given a token: one of the entries is meant,
// and the way there is encrypted or does not leave this machine.
func (h Hosts) Allows(t *Target) bool {
	if t.scheme != "https" && !(t.scheme == "http" && t.isLoopback()) {
		return false
	}
	for _, p := range h {
		if p.port == t.port && (p.host == t.host && !p.below || p.below && strings.HasSuffix(t.host, "."+p.host)) {
			return true
		}
	}
	return false
}

// urls are the entries that name one host, as URLs of https.
func (h Hosts) urls() []string {
	var list []string
	for _, p := range h {
		if !p.below {
			list = append(list, (&Target{"https", p.host, p.port}).origin())
		}
	}
	return list
}

// Origins are the entries that name one host, as the URLs that they allow: https,
// and http on this machine.
func (h Hosts) Origins() []string {
	list := h.urls()
	for _, p := range h {
		if t := (&Target{"http", p.host, p.port}); !p.below && t.isLoopback() {
			list = append(list, t.origin())
		}
	}
	return list
}

// Address is the host that a tool named, with its port unless that is 443. It is
// "" for no target, and for a name that makes no sense.
func (t *Target) Address() string {
	if t == nil || t.host == "" {
		return ""
	}
	return strings.TrimPrefix((&Target{"https", t.host, t.port}).origin(), "https://")
}

// origin is the target as a URL without a path.
func (t *Target) origin() string {
	host := t.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if t.scheme == "https" && t.port == 443 || t.scheme == "http" && t.port == 80 {
		return t.scheme + "://" + host
	}
	return t.scheme + "://" + host + ":" + strconv.Itoa(int(t.port))
}
