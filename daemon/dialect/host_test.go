package dialect

import (
	"strings"
	"testing"
)

func TestHosts(t *testing.T) {
	list := hosts(t, "nodes.bloq.cloud", "*.bloq.example", "git.bloq.example:8443", "127.0.0.1:4000", "[::1]:4001", "[2001:db8::1]", "192.0.2.7")
	for url, want := range map[string]bool{
		"https://nodes.bloq.cloud":                 true,
		"https://nodes.bloq.cloud/x?y#z":           true,
		"https://nodes.bloq.cloud:443/":            true,
		"https://NODES.Bloq.Cloud/":                true, // names have no case (RFC 4343)
		"HTTPS://nodes.bloq.cloud/":                true,
		"http://nodes.bloq.cloud/":                 false,
		"http://nodes.bloq.cloud:443/":             false,
		"https://nodes.bloq.cloud:8443/":           false,
		"https://nodes.bloq.cloud./":               false,
		"https://nodes.bloq.cloud.evil.example/":   false,
		"https://evil-nodes.bloq.cloud/":           false,
		"https://x.nodes.bloq.cloud/":              false,
		"https://bloq.cloud/":                      false,
		"https://nodes.bloq.cloud@evil.example/":   false,
		"https://nodes.bloq.cloud:443@evil/":       false,
		"https://user@nodes.bloq.cloud/":           false,
		"https://nodes.bloq.cloud\\@evil.example/": false,
		"https://evil.example#@nodes.bloq.cloud/":  false,
		"https://evil.example/nodes.bloq.cloud":    false,
		"https://nodes.bloq.cloud%2eevil.example/": false,
		"https://nodes%2ebloq.cloud/":              false,
		"https://nodes..bloq.cloud/":               false,
		"https://ｎodes.bloq.cloud/":                false, // a wide n
		"https://nodes.blo\u212a.cloud/":           false,
		"https://nodes.bloq.cl\u043eud/":           false, // a Cyrillic o
		"https://xn--ndes-bloq.cloud/":             false,
		"https://nodes.bloq.cloud:0443/":           false,
		"https://nodes.bloq.cloud:/":               false,
		"https://nodes.bloq.cloud:+443/":           false,
		"//nodes.bloq.cloud/":                      false,
		"nodes.bloq.cloud":                         false,
		"ssh://nodes.bloq.cloud/":                  false,
		"https:nodes.bloq.cloud":                   false,
		"https:///nodes.bloq.cloud":                false,

		"https://a.bloq.example/":              true,
		"https://a.b.bloq.example/":            true,
		"https://bloq.example/":                false,
		"https://.bloq.example/":               false,
		"https://abloq.example/":               false,
		"https://a.bloq.example.evil.example/": false,
		"https://a.bloq.example:8443/":         false,
		"https://git.bloq.example:8443/":       true,
		"https://*.bloq.example/":              false,

		"http://127.0.0.1:4000/":           true,
		"https://127.0.0.1:4000/":          true,
		"http://127.0.0.1/":                false,
		"http://127.0.0.2:4000/":           false,
		"http://127.1:4000/":               false,
		"http://0x7f.0.0.1:4000/":          false,
		"http://0177.0.0.1:4000/":          false,
		"http://2130706433:4000/":          false,
		"http://localhost:4000/":           false,
		"http://[::1]:4001/":               true,
		"http://[0:0:0:0:0:0:0:1]:4001/":   true,
		"http://[::1%25lo]:4001/":          false,
		"http://[::ffff:127.0.0.1]:4000/":  false,
		"http://[::127.0.0.1]:4000/":       false,
		"http://::1:4001/":                 false,
		"https://[2001:DB8::1]/":           true,
		"https://[2001:db8:0:0:0:0:0:1]/":  true,
		"http://[2001:db8::1]:443/":        false,
		"https://192.0.2.7/":               true,
		"https://192.0.2.007/":             false,
		"http://192.0.2.7:443/":            false,
		"https://[::ffff:192.0.2.7]/":      false,
		"https://nodes.bloq.cloud:443:80/": false,
	} {
		if got := list.Allows(ParseTarget(url)); got != want {
			t.Errorf("%q: %v, want %v", url, got, want)
		}
	}
	if (Hosts{}).Allows(nowhere) || list.Allows(nowhere) || list.Allows(&Target{scheme: "https"}) {
		t.Error("a server without a name is allowed")
	}
}

func TestHostEntriesThatAreRefused(t *testing.T) {
	for _, entry := range []string{
		"", ".", "*", "*.", "*.com", "*.127.0.0.1", "*.[::1]", "a.*.example", "https://x.example", "x.example/", "x.example:", "x.example:0",
		"x.example:65536", "x.example:http", "x.example.", "x..example", "-x.example", "ü.example", "user@x.example", "127.1", "[::1", "::1", "x y",
		"[::ffff:1.2.3.4]", strings.Repeat("a", 64) + ".example",
	} {
		if h, err := ParseHost(entry); err == nil {
			t.Errorf("%q is taken as %v", entry, h)
		}
	}
}

func TestTheHostOfAURL(t *testing.T) {
	for url, want := range map[string]string{
		"https://nodes.bloq.cloud":     "https://nodes.bloq.cloud",
		"https://nodes.bloq.cloud/v1/": "https://nodes.bloq.cloud",
		"http://127.0.0.1:4002":        "https://127.0.0.1:4002",
		"https://[::1]:4002/":          "https://[::1]:4002",
		"":                             "",
	} {
		if got := strings.Join(HostOf(url).urls(), ","); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
}

// Whatever a target is written like: if it is allowed, then because its parsed
// host and port are those of an entry.
func FuzzAnAllowedTargetIsAnEntry(f *testing.F) {
	f.Add("https://nodes.bloq.cloud/x")
	f.Add("https://nodes.bloq.cloud@evil.example/")
	f.Add("http://[::1]:4001")
	f.Fuzz(func(t *testing.T, url string) {
		target := ParseTarget(url)
		if !ours(t).Allows(target) {
			return
		}
		switch target.origin() {
		case "https://nodes.bloq.cloud", "http://127.0.0.1:4000", "https://127.0.0.1:4000", "http://[::1]:4001", "https://[::1]:4001":
		default:
			if !strings.HasPrefix(target.origin(), "https://") || !strings.HasSuffix(target.origin(), ".bloq.example") {
				t.Errorf("%q is allowed as %s", url, target.origin())
			}
		}
	})
}

func TestTheAddressOfATargetIsNothingButItsHost(t *testing.T) {
	for raw, want := range map[string]string{
		"https://GitHub.com/a/b?c#d": "github.com", "https://github.com:8443/": "github.com:8443",
		"http://nodes.bloq.cloud/": "nodes.bloq.cloud:80", // not given a token, and one sees why
		"https://[2001:DB8::1]/":   "[2001:db8::1]", "https://[::1]:4001": "[::1]:4001", "https://127.0.0.1": "127.0.0.1",
		"https://ada:secret@github.com/": "", "https://a b/": "", "ftp://github.com/": "", "": "",
	} {
		if got := ParseTarget(raw).Address(); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
	if got := (*Target)(nil).Address(); got != "" {
		t.Errorf("no target: %q", got)
	}
}
