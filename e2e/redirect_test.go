package e2e

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A redirected is a tool that is sent from our host to another origin.
type redirected struct {
	name, needs string
	script      string // with FROM for an origin and HOST for a host and its port
	keeps       string // the kinds of origin that the tool itself sends the token on to
}

// What each tool does with the token when it is redirected is the tool's own
// affair, where it asks the helper; SECURITY.md says what is known. Where we
// configure it, no other origin gets the token.
var redirects = []redirected{
	{"exec git", "git", "bloq-agent exec --env git git ls-remote FROM/r.git", ""},
	{"exec git-new", "git-new", "bloq-agent exec --env git git-new ls-remote FROM/r.git", ""},
	{"exec npm", "npm", "bloq-agent exec --env npm npm view --fetch-retries=0 --registry=FROM/ foo", ""},
	{"exec git that follows elsewhere", "git", "bloq-agent exec --env git git -c http.followRedirects=true ls-remote FROM/r.git", ""},
	{"git", "git", "git ls-remote FROM/r.git", ""},
	{"git that follows", "git", "git -c http.followRedirects=true ls-remote FROM/r.git", ""},
	{"git-new", "git-new", "git-new ls-remote FROM/r.git", ""},
	{"git-new that follows", "git-new", "git-new -c http.followRedirects=true ls-remote FROM/r.git", ""},
	{"pnpm", "pnpm", "cd p && rm -rf pnpm-lock.yaml ~/.cache ~/.local && echo '{}' >package.json && pnpm add --lockfile-only --registry FROM/ foo", ""},
	{"pnpm 10", "pnpm-10", "cd p && rm -rf pnpm-lock.yaml ~/.cache ~/.local && echo '{}' >package.json && pnpm-10 add --lockfile-only --fetch-retries=0 --registry FROM/ foo", "scheme"},
	{"cargo", "cargo", "cd crate && rm -rf Cargo.lock ~/.cargo/registry && cargo generate-lockfile", ""},
	{"Go", "go", "go list -m -versions example.test/m", "port"},
	{"docker", "docker", "docker manifest inspect --insecure HOST/foo:a", ""},
	{"crane", "crane", "crane ls --insecure HOST/foo", ""},
	{"kubectl", "kubectl", "kubectl get --raw /api", "port host scheme both"},
	{"Terraform", "terraform", "cd tf && rm -rf .terraform && terraform init -no-color -input=false", "port scheme both"},
	{"curl", "curl", "bloq-token header | curl -sSL -H @- FROM/api && bloq-token curl | curl -sSL -K - FROM/api", ""},
}

// everything serves to each of these tools what it wants.
func everything(t *testing.T) http.HandlerFunc {
	t.Helper()
	repository := gitBackend(t)
	return func(w http.ResponseWriter, r *http.Request) {
		self := originOf(r)
		switch path := r.URL.Path; {
		case strings.HasPrefix(path, "/r.git/"):
			repository.ServeHTTP(w, r)
		case path == "/mod/example.test/m/@v/list":
			_, _ = w.Write([]byte("v1.0.0\n"))
		case path == "/index/config.json":
			answerJSON(w, `{"dl":"`+self+`/dl","api":"`+self+`","auth-required":true}`)
		case path == "/index/3/f/foo":
			answerJSON(w, `{"name":"foo","vers":"1.0.0","deps":[],"features":{},"cksum":"`+strings.Repeat("0", 64)+`","yanked":false}`+"\n")
		case path == "/foo":
			answerJSON(w, `{"name":"foo","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"foo","version":"1.0.0","dist":{"tarball":"`+self+`/foo/-/foo-1.0.0.tgz","shasum":"`+strings.Repeat("0", 40)+`"}}},"time":{"1.0.0":"2020-01-01T00:00:00Z"}}`)
		case path == "/v2/" || path == "/v2/foo/tags/list":
			answerJSON(w, `{"name":"foo","tags":["a"]}`)
		case strings.HasSuffix(path, "/versions"):
			answerJSON(w, `{"modules":[{"versions":[{"version":"1.0.0"}]}]}`)
		case path == "/api":
			answerJSON(w, `{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":[]}`)
		default:
			http.NotFound(w, r)
		}
	}
}

// redirectWorld configures every tool for https://localhost:FIRST as README says.
func redirectWorld(t *testing.T, c *crossroads) *world {
	t.Helper()
	host := "localhost:" + c.first
	from := "https://" + host
	w := toolWorld(t, host+`", "127.0.0.1:`+c.second+`", "bloq.example`) // Terraform takes no localhost
	as := strings.NewReplacer("https://bloq.example", from, "bloq.example", host, "~/.local/bin", bin, "$HOME/.local/bin", bin).Replace
	w.env = append(w.env, "GIT_SSL_CAINFO="+c.ca, "npm_config_cafile="+c.ca, "SSL_CERT_FILE="+c.ca, "CURL_CA_BUNDLE="+c.ca, "CARGO_HTTP_CAINFO="+c.ca,
		"GOPROXY="+from+"/mod", "GOFLAGS=-modcacherw", "NO_PROXY=*", "npm_config_cache="+w.dir+"/npm", "NO_UPDATE_NOTIFIER=1")
	s := snippets(t)
	for tool, heading := range map[string]string{"git": "git", "go": "Go", "pnpm": "pnpm"} {
		if _, err := exec.LookPath(tool); err == nil {
			w.mustSh(as(s[heading]))
		}
	}
	w.write(".cargo/config.toml", as(s["cargo"]))
	_ = w.cargoProject()
	w.write(".docker/config.json", as(s["Docker, podman, crane, helm"]))
	if _, err := exec.LookPath("kubectl"); err == nil {
		w.mustSh("kubectl config set-cluster c --server=" + from + " --certificate-authority=" + c.ca +
			" && kubectl config set-context c --cluster=c && kubectl config use-context c")
		w.mustSh(s["kubectl"])
	}
	w.mustSh(strings.ReplaceAll(s["Terraform"], "~/.local/bin", bin))
	w.mustSh("cat >>.terraformrc <<'END'\nhost \"bloq.example\" { services = { \"modules.v1\" = \"" + from + "/modules/\" } }\nEND")
	w.write("tf/main.tf", "module \"m\" {\n  source = \"bloq.example/ns/m/p\"\n  version = \"1.0.0\"\n}\n")
	w.write("p/package.json", "{}")
	return w
}

// The token goes to the hosts of the profile, and where one of them redirects to
// another origin it stays behind, in header, URL and password.
func TestARedirectDoesNotTakeTheTokenAlong(t *testing.T) {
	need(t, "git")
	c := newCrossroads(t, everything(t))
	w := redirectWorld(t, c)
	host := "localhost:" + c.first
	from := "https://" + host
	kinds := map[string]string{
		"port": "https://localhost:" + c.second, "host": "https://127.0.0.1:" + c.first, "scheme": "http://" + host, "both": "http://localhost:" + c.second,
	}
	for _, tool := range redirects {
		t.Run(tool.name, func(t *testing.T) {
			need(t, tool.needs)
			var got []string
			for kind, to := range kinds {
				for _, way := range []turn{{from, to, http.StatusFound, false}, {from, to, http.StatusTemporaryRedirect, true}} {
					if way.demands && !strings.Contains(tool.name, "git") && !strings.HasPrefix(tool.name, "exec") {
						continue
					}
					c.set(way)
					r := w.sh(strings.NewReplacer("FROM", from, "HOST", host).Replace(tool.script))
					home, elsewhere := c.tokens()
					if home == 0 {
						t.Fatalf("%+v: our own host got no token\n%s%s", way, r.stdout, r.stderr)
					}
					if len(elsewhere) > 0 && !slices.Contains(strings.Fields(tool.keeps), kind) {
						t.Errorf("%+v: the token came to %q", way, elsewhere)
					}
					if len(elsewhere) > 0 && !slices.Contains(got, kind) {
						got = append(got, kind)
					}
				}
			}
			slices.Sort(got)
			t.Logf("%s takes the token along in %d of %d kinds of redirect %s", tool.name, len(got), len(kinds), got)
		})
	}
}

// From plain http on this machine, which exec tells tools of too.
func TestARedirectFromThisMachine(t *testing.T) {
	need(t, "git")
	c := newCrossroads(t, everything(t))
	w := redirectWorld(t, c)
	from := "http://127.0.0.1:" + c.second
	for _, tool := range redirects[:3] {
		t.Run(tool.name, func(t *testing.T) {
			need(t, tool.needs)
			for _, to := range []string{"http://127.0.0.1:" + c.first, "http://localhost:" + c.second, "https://127.0.0.1:" + c.first} {
				c.set(turn{from, to, http.StatusFound, false})
				r := w.sh(strings.ReplaceAll(tool.script, "FROM", from))
				if home, elsewhere := c.tokens(); home == 0 || len(elsewhere) > 0 {
					t.Errorf("%s: %d requests with the token at home, elsewhere %q\n%s%s", to, home, elsewhere, r.stdout, r.stderr)
				}
			}
		})
	}
}

// What a redirect within the origin does is in exec's help: git says 302, npm
// follows with the token, and a helper's git follows too.
func TestARedirectWithinTheOrigin(t *testing.T) {
	need(t, "git")
	c := newCrossroads(t, everything(t))
	w := redirectWorld(t, c)
	from := "https://localhost:" + c.first
	for i, tool := range redirects[:3] {
		t.Run(tool.name, func(t *testing.T) {
			need(t, tool.needs)
			c.set(turn{from, from + "/moved", http.StatusFound, false})
			r := w.sh(strings.ReplaceAll(tool.script, "FROM", from))
			home, _ := c.tokens()
			if i == 2 && (r.code != 0 || home < 2) || i < 2 && (r.code == 0 || !strings.Contains(r.stderr, "The requested URL returned error: 302")) {
				t.Errorf("exit %d, %d requests with the token\n%s%s", r.code, home, r.stdout, r.stderr)
			}
		})
	}
	if help := w.must("", "bloq-agent", "exec", "--help").stdout; !strings.Contains(help, "The requested URL returned error: 302") {
		t.Errorf("the help does not say what git says:\n%s", help)
	}
}

// A proxy is another server. What goes to plain http on this machine would be
// read by it.
func TestAProxyDoesNotSeeTheTokenOfExec(t *testing.T) {
	need(t, "git")
	c := newCrossroads(t, everything(t))
	w := redirectWorld(t, c)
	proxy := &headers{}
	srv := httptest.NewServer(proxy)
	t.Cleanup(srv.Close)
	w.env = slices.DeleteFunc(w.env, func(e string) bool { return strings.HasPrefix(e, "NO_PROXY=") })
	w.env = append(w.env, "http_proxy="+srv.URL, "https_proxy="+srv.URL)
	for _, tool := range redirects[:3] {
		t.Run(tool.name, func(t *testing.T) {
			need(t, tool.needs)
			from := "http://127.0.0.1:" + c.second
			c.set(turn{from: from})
			r := w.sh(strings.ReplaceAll(tool.script, "FROM", from))
			if home, _ := c.tokens(); r.code != 0 || home == 0 {
				t.Errorf("exit %d, %d requests with the token\n%s%s", r.code, home, r.stdout, r.stderr)
			}
			if seen := proxy.take(); len(seen) != 0 {
				t.Errorf("the proxy got %d requests for a server on this machine", len(seen))
			}
			w.sh(strings.ReplaceAll(tool.script, "FROM", "https://localhost:"+c.first))
			if seen := proxy.take(); len(seen) == 0 || slices.ContainsFunc(seen, func(s []string) bool { return len(s) > 0 }) {
				t.Errorf("the proxy was asked %d times for a way to https, and sees a credential or nothing", len(seen))
			}
		})
	}
}
