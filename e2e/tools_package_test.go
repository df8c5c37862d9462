package e2e

import (
	"net/http"
	"strings"
	"testing"

	"bloq-agent/accounts/sandbox"
)

// goProxy serves one module, to whoever sends any credentials.
func goProxy(t *testing.T) *listener {
	t.Helper()
	return listen(t, true, []string{"Bearer"}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/mod/example.test/m/@v/list":
			_, _ = w.Write([]byte("v1.0.0\n"))
		case "/mod/example.test/m/@v/v1.0.0.info":
			answerJSON(w, `{"Version":"v1.0.0"}`)
		case "/mod/example.test/m/@v/v1.0.0.mod":
			_, _ = w.Write([]byte("module example.test/m\n"))
		default:
			http.NotFound(w, r)
		}
	})
}

func testGo(t *testing.T, snippet string) {
	l := goProxy(t)
	w := toolWorld(t, l.host())
	w.mustSh(asWritten(snippet, l))
	w.env = append(w.env, "GOPROXY="+l.URL+"/mod", "SSL_CERT_FILE="+l.ca(t), "GOFLAGS=-modcacherw")
	// With -x a helper that fails is shown; without, Go says only "401".
	w.proves(l, bearer, true, func() result { return w.sh("go list -x -m -versions example.test/m") })
}

// Hosts that only a pattern names are not offered before Go asks for one: that
// is its second question, with the URL.
func TestGoAsksAgainWithTheURL(t *testing.T) {
	l := goProxy(t)
	w := toolWorld(t, l.host())
	w.write("goauth", "#!/bin/sh\necho \"$#\" >>~/asked\n[ $# = 0 ] || exec bloq-token goauth \"$@\"\n")
	w.env = append(w.env, "GOPROXY="+l.URL+"/mod", "SSL_CERT_FILE="+l.ca(t), "GOFLAGS=-modcacherw", "GOAUTH="+w.dir+"/goauth")
	w.mustSh("chmod 700 goauth")
	w.proves(l, bearer, true, func() result { return w.sh("go list -x -m -versions example.test/m") })
	if asked := w.mustSh("sort -u asked"); asked != "0\n1\n" {
		t.Errorf("numbers of arguments: %q", asked)
	}
}

// cargoIndex serves an index of one crate.
func cargoIndex(t *testing.T) *listener {
	t.Helper()
	var l *listener
	l = listen(t, false, []string{`Cargo login_url="https://bloq.example/login"`}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/index/config.json":
			answerJSON(w, `{"dl":"`+l.URL+`/dl","api":"`+l.URL+`","auth-required":true}`)
		case "/index/3/f/foo":
			answerJSON(w, `{"name":"foo","vers":"1.0.0","deps":[],"features":{},"cksum":"`+strings.Repeat("0", 64)+`","yanked":false}`+"\n")
		default:
			http.NotFound(w, r)
		}
	})
	return l
}

// cargoProject makes a crate that depends on the one in the index; the result
// resolves it.
func (w *world) cargoProject() func() result {
	w.write("crate/Cargo.toml", "[package]\nname=\"x\"\nversion=\"0.1.0\"\nedition=\"2021\"\n[dependencies]\nfoo={version=\"1\",registry=\"bloq\"}\n")
	w.write("crate/src/lib.rs", "")
	return func() result {
		return w.sh("cd crate && rm -rf Cargo.lock ~/.cargo/registry && cargo generate-lockfile")
	}
}

func testCargo(t *testing.T, snippet string) {
	need(t, "cargo")
	l := cargoIndex(t)
	w := toolWorld(t, l.host())
	w.version("cargo --version")
	w.write(".cargo/config.toml", asWritten(snippet, l))
	w.proves(l, bearer, true, w.cargoProject())
}

// Cargo's other way: a program that prints the whole value of the header.
func TestCargoTokenFromStdout(t *testing.T) {
	need(t, "cargo")
	l := cargoIndex(t)
	w := toolWorld(t, l.host())
	w.write(".cargo/config.toml", "[registries.bloq]\nindex = \"sparse+"+l.URL+"/index/\"\ncredential-provider = [\"cargo:token-from-stdout\", \"bloq-token\", \"bearer\"]\n")
	w.proves(l, bearer, true, w.cargoProject())
}

func testPnpm(t *testing.T, snippet string) {
	need(t, "pnpm")
	for _, pnpm := range []string{"pnpm", "pnpm-10"} {
		t.Run(pnpm, func(t *testing.T) {
			need(t, pnpm)
			var l *listener
			l = listen(t, false, nil, func(w http.ResponseWriter, _ *http.Request) {
				answerJSON(w, `{"name":"foo","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"foo","version":"1.0.0","dist":{"tarball":"`+l.URL+`/foo/-/foo-1.0.0.tgz","shasum":"`+strings.Repeat("0", 40)+`"}}},"time":{"1.0.0":"2020-01-01T00:00:00Z"}}`)
			})
			w := toolWorld(t, l.host())
			w.version(pnpm + " --version")
			w.mustSh(asWritten(snippet, l))
			w.write("p/package.json", "{}")
			// It keeps what a helper says on stderr to itself: 10 names the exit code,
			// 11 and newer go on without a token and say "401".
			w.proves(l, bearer, false, func() result {
				return w.sh("cd p && rm -rf pnpm-lock.yaml ~/.cache ~/.local && echo '{}' >package.json && " + pnpm + " add --lockfile-only --registry " + l.URL + "/ foo")
			})
		})
	}
}

// registry is a container registry with one image.
func registry(t *testing.T, tls bool) *listener {
	t.Helper()
	return listen(t, tls, []string{`Basic realm="bloq"`}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/", "/v2/foo/tags/list":
			answerJSON(w, `{"name":"foo","tags":["a"]}`)
		case "/v2/foo/manifests/a":
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
			_, _ = w.Write([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}`))
		case "/v2/foo/blobs/sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a":
			_, _ = w.Write([]byte("{}"))
		default:
			http.NotFound(w, r)
		}
	})
}

func testDocker(t *testing.T, snippet string) {
	for tool, command := range map[string]string{
		"docker": "docker manifest inspect --insecure HOST/foo:a",
		"crane":  "crane ls --insecure HOST/foo",
	} {
		t.Run(tool, func(t *testing.T) {
			need(t, tool)
			l := registry(t, tool == "docker")
			w := toolWorld(t, l.host())
			w.version(tool + " version 2>&1 || true; " + tool + " --version")
			w.write(".docker/config.json", asWritten(snippet, l))
			w.proves(l, basic("bloq"), true, func() result { return w.sh(strings.ReplaceAll(command, "HOST", l.host())) })
		})
	}
}

// Registries that take a token as a password want a user name of their own.
func TestDockerUsername(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.configure("[profile.default]\nhosts = [\"bloq.example\"]\ndocker_username = \"oauth2accesstoken\"\n")
	w.start("--store", "memory")
	w.login()
	got := w.must("bloq.example", "docker-credential-bloq", "get").stdout
	if want := `{"ServerURL":"bloq.example","Username":"oauth2accesstoken","Secret":"` + w.token() + `"}` + "\n"; got != want {
		t.Errorf("%s", got)
	}
}

// A store for all registries is asked for each of them.
func TestCraneStillTalksToOtherRegistries(t *testing.T) {
	need(t, "crane")
	l := listen(t, false, nil, func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, `{"name":"foo","tags":["a"]}`) })
	l.open = true
	w := toolWorld(t, "nodes.bloq.cloud")
	w.write(".docker/config.json", `{"credsStore":"bloq"}`)
	for _, when := range []string{"with the daemon", "with nobody logged in", "without the daemon"} {
		if r := w.sh("crane ls --insecure " + l.host() + "/foo"); r.code != 0 || r.stdout != "a\n" {
			t.Errorf("%s: %+v", when, r)
		}
		if when == "with the daemon" {
			w.must("", "bloq-agent", "logout")
		} else if when == "with nobody logged in" {
			w.stop()
		}
	}
	if got := l.took(); len(got) != 0 {
		t.Errorf("Authorization: %s", got)
	}
}

// The same for cargo: the next provider is asked.
func TestCargoStillTalksToOtherRegistries(t *testing.T) {
	need(t, "cargo")
	l := cargoIndex(t)
	w := toolWorld(t, "nodes.bloq.cloud")
	w.write(".cargo/config.toml", "[registry]\nglobal-credential-providers = [\"cargo:token\", \"cargo-credential-bloq\"]\n[registries.bloq]\nindex = \"sparse+"+l.URL+"/index/\"\n")
	w.write(".cargo/credentials.toml", "[registries.bloq]\ntoken = \"another\"\n")
	run := w.cargoProject()
	for _, when := range []string{"with the daemon", "without the daemon"} {
		r := run()
		got := l.took()
		if r.code != 0 || len(got) == 0 || got[0] != "another" {
			t.Errorf("%s: %+v, Authorization: %s", when, r, got)
		}
		if when == "with the daemon" {
			w.stop()
		}
	}
}
