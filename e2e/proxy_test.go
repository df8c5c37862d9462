package e2e

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

// proxied is a world with a login whose endpoint has a name that a proxy is used
// for, so that it can be set for the daemon and for commands.
func proxied(t *testing.T) *world {
	t.Helper()
	name := loopbackName()
	if name == "" {
		t.Skip("/etc/hosts has no name for 127.0.0.1 but localhost, which no proxy is used for")
	}
	w := newWorld(t, sandbox.Config{AccessTTL: time.Minute})
	_, port, err := net.SplitHostPort(w.secure(name))
	must(t, err)
	w.url = "https://" + net.JoinHostPort(name, port)
	w.start("--store", "file")
	w.login()
	w.stop()
	return w
}

// asked is how many requests the sandbox has had.
func (w *world) asked() int {
	n := 0
	for _, times := range w.api.Load().Stats().Routes {
		n += times
	}
	return n
}

// A proxy variable that does not parse stops every call: it is not made directly.
func TestAProxyThatDoesNotParseStopsTheCall(t *testing.T) {
	const proxyPassword = "the-proxys-password"
	w := proxied(t)
	before, env := w.asked(), w.env
	for variable, value := range map[string]string{
		"HTTPS_PROXY": "http://Ada:" + proxyPassword + "%@127.0.0.1:1",
		"https_proxy": "gopher://Ada:" + proxyPassword + "@127.0.0.1:1",
	} {
		w.env = append(env[:len(env):len(env)], variable+"="+value)
		w.start("--store", "file")
		says := variable + " is not the URL of a proxy: "
		r := w.run("", "bloq-token")
		if r.code != ipc.ExitUnavailable || !strings.Contains(r.stderr, "default: refresh: "+says) || strings.Contains(r.stderr, "hint") {
			t.Errorf("%+v", r)
		}
		login := w.run(w.pass+"\n", "bloq-agent", "login", "--accounts-url", w.url, "--user", w.user, "--password-stdin")
		if login.code != ipc.ExitUnavailable || !strings.Contains(login.stderr, "bloq-agent: error: login: "+says) {
			t.Errorf("%+v", login)
		}
		status := w.run("", "bloq-agent", "status")
		if status.code != 0 || !strings.Contains(status.stdout, "configuration") || !strings.Contains(status.stdout, says) {
			t.Errorf("%+v", status)
		}
		w.stop()
		if all := w.log.String() + r.stderr + login.stderr + status.stdout; strings.Contains(all, proxyPassword) || strings.Contains(all, "Ada") {
			t.Errorf("the proxy's user or password is printed: %s", all)
		}
	}
	if n := w.asked() - before; n != 0 {
		t.Errorf("the endpoint had %d direct requests", n)
	}
	w.env = env
	w.start("--store", "file")
	w.must("", "bloq-token")
}

// A proxy that wants a password is named by host and port, and by nothing else of
// its URL.
func TestAProxyThatWantsAPasswordIsNamed(t *testing.T) {
	const proxyPassword = "the-proxys-password"
	w := proxied(t)
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Proxy-Authenticate", `Basic realm="`+proxyPassword+`"`)
		rw.WriteHeader(http.StatusProxyAuthRequired)
		_, _ = io.WriteString(rw, r.Header.Get("Proxy-Authorization"))
	}))
	defer proxy.Close()
	address := proxy.Listener.Addr().String()
	w.env = append(w.env, "HTTPS_PROXY=http://Ada:"+proxyPassword+"@"+address)
	w.start("--store", "file")
	says := "the proxy " + address + " answered 407 Proxy Authentication Required"
	r := w.run("", "bloq-token")
	login := w.run(w.pass+"\n", "bloq-agent", "login", "--accounts-url", w.url, "--user", w.user, "--password-stdin")
	for _, r := range []result{r, login} {
		if r.code != ipc.ExitUnavailable || !strings.Contains(r.stderr, says) {
			t.Errorf("%+v", r)
		}
	}
	w.stop()
	if all := w.log.String() + r.stderr + login.stderr; !strings.Contains(w.log.String(), says) || strings.Contains(all, proxyPassword) || strings.Contains(all, "Ada") {
		t.Errorf("the log, or what is printed: %s", all)
	}
}
