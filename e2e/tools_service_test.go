package e2e

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func testKubectl(t *testing.T, snippet string) {
	need(t, "kubectl")
	l := listen(t, true, nil, func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, `{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":[]}`)
	})
	w := toolWorld(t, "nodes.bloq.cloud") // kubectl names no host: its configuration says whom it talks to
	w.version("kubectl version --client")
	w.mustSh("kubectl config set-cluster c --server=" + l.URL + " --certificate-authority=" + l.ca(t) +
		" && kubectl config set-context c --cluster=c && kubectl config use-context c")
	w.mustSh(snippet)
	w.proves(l, bearer, true, func() result { return w.sh("kubectl get --raw /api") })
}

func testTerraform(t *testing.T, snippet string) {
	need(t, "terraform")
	l := listen(t, true, nil, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/versions"):
			answerJSON(w, `{"modules":[{"versions":[{"version":"1.0.0"}]}]}`)
		default:
			http.NotFound(w, r)
		}
	})
	w := toolWorld(t, "bloq.example")
	w.version("terraform version")
	w.mustSh(strings.ReplaceAll(snippet, "~/.local/bin", bin))
	// Instead of a look-up of bloq.example and its list of services.
	w.mustSh(`cat >>.terraformrc <<'END'
host "bloq.example" { services = { "modules.v1" = "` + l.URL + `/modules/" } }
END`)
	w.write("tf/main.tf", "module \"m\" {\n  source = \"bloq.example/ns/m/p\"\n  version = \"1.0.0\"\n}\n")
	w.env = append(w.env, "SSL_CERT_FILE="+l.ca(t), "TF_LOG=WARN")
	// The module itself is not served: that the list of its versions was is enough.
	w.proves(l, bearer, true, func() result {
		r := w.sh("cd tf && rm -rf .terraform && terraform init -no-color -input=false")
		if strings.Contains(r.stdout+r.stderr, "Downloading bloq.example") {
			r.code = 0
		}
		return r
	})
}

func testCurl(t *testing.T, snippet string) {
	need(t, "curl")
	l := listen(t, false, nil, func(http.ResponseWriter, *http.Request) {})
	w := toolWorld(t, "nodes.bloq.cloud")
	for line := range strings.Lines(snippet) {
		w.login()
		w.proves(l, bearer, true, func() result {
			return w.sh(strings.Replace(asWritten(line, l), "curl -", "curl -sS --fail -", 1))
		})
	}
}

func testShell(t *testing.T, snippet string) {
	need(t, "curl")
	l := listen(t, false, nil, func(http.ResponseWriter, *http.Request) {})
	w := toolWorld(t, "nodes.bloq.cloud")
	w.proves(l, bearer, true, func() result {
		return w.sh("set -e\n" + asWritten(snippet, l) + "\nprintf 'header = \"Authorization: Bearer %s\"' \"$BLOQ_ACCESS_TOKEN\" | curl -sS --fail -K - " + l.URL)
	})
}

// Bazel is not to be had here: the helper is called as its specification says.
func testBazel(t *testing.T, snippet string) {
	l := listen(t, true, nil, nil)
	w := toolWorld(t, l.host())
	scope, path, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(asWritten(snippet, l)), "common --credential_helper="), "=")
	if !found || scope != l.host() {
		t.Fatalf("scope %q, path %q", scope, path)
	}
	w.bazel(l, path+" get")
}

func testOwnProgram(t *testing.T, snippet string) {
	l := listen(t, true, nil, nil)
	w := toolWorld(t, l.host())
	_, command, _ := strings.Cut(asWritten(snippet, l), "|")
	w.bazel(l, command)
}

// bazel asks as Bazel does.
func (w *world) bazel(l *listener, helper string) {
	w.t.Helper()
	ask := func(host string) result { return w.sh(`printf '{"uri":"https://` + host + `/a/b"}' | ` + helper) }
	for range 2 {
		var got struct {
			Headers map[string][]string
			Expires time.Time
		}
		r := ask(l.host())
		if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.code != 0 || len(got.Headers) != 1 {
			w.t.Fatalf("%+v, %v", r, err)
		}
		if h := got.Headers["Authorization"]; len(h) != 1 || h[0] != bearer(w.token()) || time.Until(got.Expires) < 59*time.Minute {
			w.t.Errorf("%+v", got)
		}
		w.must("", "bloq-agent", "refresh")
	}
	if r := ask("other.example"); r.stdout != "{\"headers\":{}}\n" || r.code != 0 || r.stderr != "" {
		w.t.Errorf("another host: %+v", r)
	}
	w.must("", "bloq-agent", "logout")
	if r := ask(l.host()); r.code != 3 || r.stdout != "" || !strings.Contains(r.stderr, loginHint) {
		w.t.Errorf("without a login: %+v", r)
	}
}

func testNginx(t *testing.T, snippet string) {
	need(t, "nginx")
	l := listen(t, true, nil, func(http.ResponseWriter, *http.Request) {})
	w := toolWorld(t, "nodes.bloq.cloud")
	w.version("nginx -v")
	locations := strings.NewReplacer("/run/user/1000/bloq-agent/agent.sock", w.socket(), "/etc/ssl/certs/ca-certificates.crt", l.ca(t)).
		Replace(asWritten(snippet, l))
	w.write("nginx.conf", "master_process off;\npid nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"+
		"client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n"+
		// The listener's certificate has this name beside its address, which nginx does not look at.
		"proxy_ssl_name example.com;\n"+
		"server {\nlisten unix:"+w.dir+"/nginx.sock;\n"+locations+"\n}\n}\n")
	var log lockedBuffer
	nginx := exec.Command("nginx", "-p", w.dir, "-c", w.dir+"/nginx.conf", "-g", "daemon off;")
	nginx.Env, nginx.Dir, nginx.Stderr = w.env, w.dir, &log
	if err := nginx.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with nginx
		_ = nginx.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = nginx.Process.Kill()
		<-ended
	})
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			for {
				c, err := (&net.Dialer{}).DialContext(ctx, "unix", w.dir+"/nginx.sock")
				if err == nil || ctx.Err() != nil {
					return c, err
				}
				select {
				case <-ended:
					return nil, err
				case <-time.After(10 * time.Millisecond): // nginx has no way to say that it is ready
				}
			}
		},
	}}
	w.proves(l, bearer, false, func() result {
		r, _ := http.NewRequest(http.MethodGet, "http://x/any?thing=1", nil)
		r.Header.Set("Authorization", "Basic of-the-client")
		answer, err := client.Do(r)
		if err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return result{code: answer.StatusCode, stdout: log.String()}
		}
		return result{}
	})
}
