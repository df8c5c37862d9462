package dialect

import (
	"encoding/json"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"bloq-agent/ipc"
)

// A reading is what one family of URL parsers makes of text: an origin like
// https://host:443.
type reading func(text string) (origin string, err error)

var readings = map[string]reading{
	"net/url": func(text string) (string, error) {
		u, err := url.Parse(text)
		if err != nil {
			return "", err
		}
		return origin(u.Scheme, u.Hostname(), u.Port())
	},
	"browser": browser,
	// The host ends at the first slash and begins after the last @: many a regular
	// expression does that.
	"slash": func(text string) (string, error) {
		scheme, rest, _ := strings.Cut(text, "://")
		return authority(scheme, until(rest, "/"))
	},
	// The same, but with the first @.
	"first at": func(text string) (string, error) {
		scheme, rest, _ := strings.Cut(text, "://")
		rest = until(rest, "/?#")
		if _, after, found := strings.Cut(rest, "@"); found {
			rest = after
		}
		return authority(scheme, rest)
	},
	// A line's end is the end.
	"line": func(text string) (string, error) { return browser(until(text, "\r\n\x00")) },
}

// browser reads as the WHATWG's URL Standard has it for special schemes.
func browser(text string) (string, error) {
	text = strings.TrimFunc(text, func(r rune) bool { return r <= ' ' })
	text = strings.NewReplacer("\t", "", "\r", "", "\n", "").Replace(text)
	scheme, rest, found := strings.Cut(text, ":")
	if !found {
		return "", errors.New("no scheme")
	}
	return authority(scheme, until(strings.TrimLeft(rest, `/\`), `/\?#`))
}

func until(s, end string) string {
	if i := strings.IndexAny(s, end); i >= 0 {
		return s[:i]
	}
	return s
}

// authority reads [user@]host[:port], percent signs undone.
func authority(scheme, s string) (string, error) {
	s = s[strings.LastIndexByte(s, '@')+1:]
	port := ""
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		s, port = s[:i], s[i+1:]
	}
	if plain, err := url.PathUnescape(s); err == nil {
		s = plain
	}
	return origin(scheme, strings.Trim(s, "[]"), port)
}

func origin(scheme, host, port string) (string, error) {
	scheme, host = strings.ToLower(scheme), strings.ToLower(host)
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	} else if n, err := strconv.ParseUint(host, 0, 32); err == nil { // inet_aton
		host = netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}).String()
	}
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[scheme]
	}
	return scheme + "://" + host + ":" + port, nil
}

// isOurs reports whether an origin is one of the hosts of ours.
func isOurs(origin string) bool {
	host, found := strings.CutPrefix(origin, "https://")
	return found && host == "nodes.bloq.cloud:443" || found && strings.HasSuffix(host, ".bloq.example:443") ||
		slices.Contains([]string{"http://127.0.0.1:4000", "https://127.0.0.1:4000", "http://::1:4001", "https://::1:4001"}, origin)
}

// spellings put a URL into a call of each dialect that names a server, with the
// text that its tool would take for the URL afterwards.
var spellings = map[string]func(text string) (ipc.Call, string){
	"docker": func(s string) (ipc.Call, string) {
		if !strings.Contains(s, "://") {
			return in(s, "get"), "https://" + s
		}
		return in(s, "get"), s
	},
	"git": func(s string) (ipc.Call, string) {
		scheme, rest, _ := strings.Cut(s, "://")
		host := until(rest, "/\n")
		return in("protocol="+until(scheme, "\n")+"\nhost="+host+"\n", "get"), until(scheme, "\n") + "://" + host
	},
	"goauth": func(s string) (ipc.Call, string) { return in("", s), s },
	"terraform": func(s string) (ipc.Call, string) {
		_, rest, _ := strings.Cut(s, "://")
		return in("", "get", until(rest, "/")), "https://" + until(rest, "/")
	},
	"cargo": func(s string) (ipc.Call, string) {
		index, _ := json.Marshal(s)
		return in(`{"v":1,"registry":{"index-url":`+string(index)+`},"kind":"get"}`, "--cargo-plugin"),
			strings.TrimPrefix(strings.TrimPrefix(s, "sparse+"), "registry+")
	},
	"bazel": func(s string) (ipc.Call, string) {
		uri, _ := json.Marshal(s)
		return in(`{"uri":`+string(uri)+`}`, "get"), s
	},
}

// oddURLs are read in more than one way.
var oddURLs = []string{
	"https://nodes.bloq.cloud/x", "http://127.0.0.1:4000", "nodes.bloq.cloud", "127.0.0.1:4000/v2/", "sparse+https://nodes.bloq.cloud/index/", "http://[::1]:4001/",
	"http://127.0.0.1:4000?@evil.example", "http://127.0.0.1:4000#@evil.example", "nodes.bloq.cloud?@evil.example", "nodes.bloq.cloud#@evil.example",
	"https://nodes.bloq.cloud?@evil.example/", "https://nodes.bloq.cloud#@evil.example/", `https://nodes.bloq.cloud\@evil.example/`, `https://evil.example\@nodes.bloq.cloud/`,
	"https://evil.example?@nodes.bloq.cloud/", "https://evil.example#@nodes.bloq.cloud/", "https://a@b@nodes.bloq.cloud/", "https://nodes.bloq.cloud@evil.example/",
	"https://nodes.bloq.cloud:@evil.example/", "https://nodes.bloq.cloud%40evil.example/", "https://nodes.bloq.cloud%2f@evil.example/", "https://nodes.bloq.cloud%00.evil.example/",
	"https://nodes.bloq.cloud\x00.evil.example/", "https://nodes.bloq.cloud\r\n.evil.example/", "https://evil.example\n.bloq.example/", "https://evil.example\r@nodes.bloq.cloud/",
	"https://nodes.bloq.cloud\t/", " https://nodes.bloq.cloud/", "https://nodes.bloq.cloud /", "nodes.bloq.cloud\u00a0", "nodes.bloq.cloud\u0085", "nodes.bloq.cloud\v", "nodes.bloq.cloud ",
	"https://evil.example\u3002bloq.example/", "https://evil.example\uff0f.bloq.example/", "https://nodes.bloq.cloud/\x00", "https://nodes.bloq.cloud/\r\nx", "https://nodes.bloq.cloud/\u00e9", `https://nodes.bloq.cloud/a\b`,
	"https:/nodes.bloq.cloud/", "https:nodes.bloq.cloud/", "https:///nodes.bloq.cloud/", `https:\\nodes.bloq.cloud\`, "//nodes.bloq.cloud/", "sparse+registry+https://nodes.bloq.cloud/",
	"http://2130706433:4000/", "http://0x7f000001:4000/", "http://[::ffff:127.0.0.1]:4000/", "https://nodes.bloq.cloud:443:80/", "https://nodes.bloq.cloud\u007f/",
}

// wantOneReading wants the token for text only if every parser finds a host of
// ours in it, and only if there is nothing in it that a parser could drop.
// It returns the dialects that give it.
func wantOneReading(t *testing.T, text string) (answered []string) {
	t.Helper()
	for name, spell := range spellings {
		call, text := spell(text)
		a := answer(t, all[name], call, sample(), nil)
		if !strings.Contains(string(a.Stdout), string(sample().Value)) {
			continue
		}
		answered = append(answered, name)
		for family, read := range readings {
			if got, err := read(strings.TrimRight(text, "\r\n")); err != nil || !isOurs(got) {
				t.Errorf("%s gives the token for %q, which %s reads as %q (%v)", name, text, family, got, err)
			}
		}
		if strings.ContainsFunc(strings.TrimRight(text, "\r\n"), func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }) {
			t.Errorf("%s gives the token for %q", name, text)
		}
	}
	return answered
}

func TestAURLThatIsReadInMoreThanOneWayGetsNothing(t *testing.T) {
	for i, text := range oddURLs {
		answered := wantOneReading(t, text)
		answered = slices.DeleteFunc(answered, func(name string) bool { return name == "git" || name == "terraform" }) // they name a host alone
		if (len(answered) > 0) != (i < 6) {
			t.Errorf("%q: %q give the token", text, answered)
		}
	}
}

func FuzzEveryReaderFindsAHostOfOurs(f *testing.F) {
	for _, text := range oddURLs {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { wantOneReading(t, text) })
}

// A name that a URL has for its user comes back in git's lines. Nothing in it may
// end a line for anybody.
func TestGitsUserNameIsOneLine(t *testing.T) {
	for _, user := range []string{"ada\rpassword=x", "ada\r", "\x1b[2J", "a\x7f", "a\tb", "a\u0085b", "a\xc2b", "a\x00b"} {
		a := answer(t, git, in("protocol=https\nhost=nodes.bloq.cloud\nusername="+user+"\n", "get"), sample(), nil)
		if len(a.Stdout) > 0 || a.Exit != ipc.ExitUsage {
			t.Errorf("%q: %q", user, a.Stdout)
		}
	}
	a := answer(t, git, in("protocol=https\nhost=nodes.bloq.cloud\nusername=Jos\u00e9 a:b@c\n", "get"), sample(), nil)
	if !strings.Contains(string(a.Stdout), "username=Jos\u00e9 a:b@c\n") {
		t.Errorf("%q", a.Stdout)
	}
}

// oneKindOfEnd is for whatever a dialect answers: a line ends at a newline, and no
// other control character is in it.
func oneKindOfEnd(b []byte) bool {
	return !strings.ContainsFunc(string(b), func(r rune) bool { return r != '\n' && unicode.IsControl(r) })
}
