package e2e

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
)

// A tongue is a dialect that names hosts.
type tongue struct {
	// call is what asks for a URL; ok is false if the dialect cannot say it.
	call    func(url string) (stdin string, args []string, ok bool)
	nothing result
}

var tongues = map[string]tongue{
	"git": {func(u string) (string, []string, bool) {
		scheme, rest, found := strings.Cut(u, "://")
		host, _, _ := strings.Cut(rest, "/")
		return "protocol=" + scheme + "\nhost=" + host + "\n", []string{"git", "get"}, found
	}, result{}},
	"docker": {func(u string) (string, []string, bool) { return u, []string{"docker", "get"}, true }, result{1, "credentials not found in native keychain\n", ""}},
	"goauth": {func(u string) (string, []string, bool) {
		return "HTTP/1.1 401 Unauthorized\n\n", []string{"goauth", u}, true
	}, result{}},
	"cargo": {func(u string) (string, []string, bool) {
		return fmt.Sprintf(`{"v":1,"registry":{"index-url":"sparse+%s"},"kind":"get","operation":"read","args":[]}`+"\n", strings.ReplaceAll(u, `\`, `\\`)),
			[]string{"cargo", "--cargo-plugin"}, true
	}, result{0, "{\"v\":[1]}\n{\"Err\":{\"kind\":\"url-not-supported\"}}\n", ""}},
	"terraform": {func(u string) (string, []string, bool) {
		rest, found := strings.CutPrefix(u, "https://")
		host, _, _ := strings.Cut(rest, "/")
		return "", []string{"terraform", "get", host}, found
	}, result{0, "{}\n", ""}},
	"bazel": {func(u string) (string, []string, bool) {
		return fmt.Sprintf(`{"uri":"%s"}`, strings.ReplaceAll(u, `\`, `\\`)), []string{"bazel", "get"}, true
	}, result{0, "{\"headers\":{}}\n", ""}},
}

// Whatever a host looks like: who is not among the profile's hosts gets nothing,
// in each dialect that names one, and each tool is told so in its own way.
func TestOtherHostsGetNothing(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.configure("[profile.default]\nhosts = [\"nodes.bloq.cloud\", \"*.bloq.example\", \"git.bloq.example:8443\", \"127.0.0.1:4000\", \"[::1]:4001\"]\n")
	w.start("--store", "memory")
	w.login()
	token := w.token()
	refused := []string{
		"https://nodes.bloq.cloud.evil.example/",
		"https://nodes.bloq.cloud.evil.example:443/",
		"https://evil-nodes.bloq.cloud/",
		"https://x.nodes.bloq.cloud/",
		"https://bloq.cloud/",
		"https://nodes.bloq.cloud@evil.example/",
		"https://nodes.bloq.cloud:443@evil.example/",
		"https://user@nodes.bloq.cloud/",
		`https://nodes.bloq.cloud\@evil.example/`,
		"https://nodes.bloq.cloud?@evil.example/",
		"https://nodes.bloq.cloud#@evil.example/",
		"http://127.0.0.1:4000?@evil.example",
		"https://nodes.bloq.cloud./",
		"https://nodes..bloq.cloud/",
		"https://nodes.bloq.cloud%2eevil.example/",
		"https://nodes.bloq.cloud:8443/",
		"https://nodes.bloq.cloud:0443/",
		"https://nodes.bloq.cloud:/",
		"http://nodes.bloq.cloud/",
		"http://nodes.bloq.cloud:443/",
		"https://ｎodes.bloq.cloud/",
		"https://nodes.blo\u212a.cloud/",
		"https://xn--ndes-bloq.cloud/",
		"https://bloq.example/",
		"https://abloq.example/",
		"https://a.bloq.example.evil.example/",
		"https://a.bloq.example:8443/",
		"http://a.bloq.example/",
		"https://*.bloq.example/",
		"http://127.0.0.1/",
		"http://127.0.0.2:4000/",
		"http://127.1:4000/",
		"http://2130706433:4000/",
		"http://localhost:4000/",
		"https://[::1]/",
		"http://[::ffff:127.0.0.1]:4000/",
		"http://[::1%25lo]:4001/",
		"https://[::2]:4001/",
		"https://github.com/",
	}
	allowed := []string{
		"https://nodes.bloq.cloud/", "https://nodes.bloq.cloud:443/x", "https://NODES.Bloq.Cloud/", "https://a.b.bloq.example/",
		"https://git.bloq.example:8443/", "http://127.0.0.1:4000/", "https://127.0.0.1:4000/", "https://[0:0:0:0:0:0:0:1]:4001/",
	}
	for name, tongue := range tongues {
		t.Run(name, func(t *testing.T) {
			n := 0
			for _, u := range refused {
				stdin, args, ok := tongue.call(u)
				if !ok {
					continue
				}
				n++
				if got := w.run(stdin, "bloq-token", args...); got != tongue.nothing {
					t.Errorf("%q: %+v\nwant %+v", u, got, tongue.nothing)
				}
			}
			for _, u := range allowed {
				stdin, args, ok := tongue.call(u)
				if got := w.run(stdin, "bloq-token", args...); ok && (got.code != 0 || got.stderr != "" || !strings.Contains(got.stdout, token)) {
					t.Errorf("%q: %+v", u, got)
				}
			}
			t.Logf("%d refused", n)
		})
	}
	if !strings.Contains(w.must("", "bloq-token", "goauth").stdout, "https://nodes.bloq.cloud\n") {
		t.Error("goauth without a URL does not name the hosts")
	}
}

// Of several profiles the host decides, unless one is named; and one that is
// named must have the host.
func TestTheHostFindsTheProfile(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.configure("[profile.one]\nhosts = [\"one.example\"]\n[profile.two]\nhosts = [\"two.example\"]\n[profile.none]\nhosts = []\n")
	w.start("--store", "memory")
	w.login("-p", "one")
	w.login("-p", "two")
	token := map[string]string{}
	for _, name := range []string{"one", "two"} {
		token[name] = strings.TrimSpace(w.must("", "bloq-token", "-p", name).stdout)
	}
	for name, tongue := range tongues {
		for _, tt := range []struct {
			flags []string
			host  string
			want  string
		}{
			{nil, "one.example", "one"},
			{nil, "two.example", "two"},
			{nil, "three.example", ""},
			{[]string{"-p", "one"}, "one.example", "one"},
			{[]string{"-p", "one"}, "two.example", ""},
			{[]string{"--profile=none"}, "one.example", ""},
		} {
			stdin, args, _ := tongue.call((&url.URL{Scheme: "https", Host: tt.host}).String() + "/")
			got := w.run(stdin, "bloq-token", append(tt.flags, args...)...)
			if tt.want == "" && got != tongue.nothing || tt.want != "" && !strings.Contains(got.stdout, token[tt.want]) {
				t.Errorf("%s %v %s: %+v, want %q", name, tt.flags, tt.host, got, tt.want)
			}
		}
	}
}
