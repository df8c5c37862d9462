package e2e

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

// A spy is an HTTP proxy that remembers every byte that clients send it.
type spy struct {
	net.Listener
	to string // where every CONNECT leads

	mu       sync.Mutex
	connects []string
	heard    bytes.Buffer
}

func newSpy(t *testing.T, to string) *spy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &spy{Listener: l, to: to}
	var all sync.WaitGroup
	all.Go(func() { // ends when the test closes the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { s.serve(c) }) // ends with either side
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return s
}

func (s *spy) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(io.TeeReader(c, s))
	r, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.connects = append(s.connects, r.Method+" "+r.Host)
	s.mu.Unlock()
	if r.Method != http.MethodConnect {
		return
	}
	far, err := net.Dial("tcp", s.to)
	if err != nil {
		return
	}
	defer func() { _ = far.Close() }()
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	go func() { // ends when far is closed
		_, _ = io.Copy(c, far)
		_ = c.Close()
	}()
	_, _ = io.Copy(far, in)
}

func (s *spy) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard.Write(p)
}

func (s *spy) said() (connects []string, heard string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.connects...), s.heard.String()
}

// loopbackName is a name of this machine, other than localhost, that needs no
// DNS.
func loopbackName() string {
	b, err := os.ReadFile("/etc/hosts")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(strings.SplitN(line, "#", 2)[0])
		if len(fields) < 2 || !strings.HasPrefix(fields[0], "127.") {
			continue
		}
		for _, name := range fields[1:] {
			if !strings.HasPrefix(name, "localhost") {
				return name
			}
		}
	}
	return ""
}

// secure serves w's sandbox in TLS under name, and trusts it in w's
// configuration.
func (w *world) secure(name string) (address string) {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(w.t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(w.t, err)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.secrets.serve(w.api.Load(), rw, r)
	}))
	srv.EnableHTTP2 = true // as real endpoints; see TestNoVariableOfGoPrintsASecret
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	srv.StartTLS()
	w.t.Cleanup(srv.Close)
	ca := filepath.Join(w.dir, "ca.pem")
	must(w.t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	w.configure("tls_ca_file = \"" + ca + "\"\n")
	return srv.Listener.Addr().String()
}

// The proxy variables are obeyed, and a proxy sees where a connection goes and
// nothing of what is said there.
func TestAProxySeesNoSecret(t *testing.T) {
	name := loopbackName()
	if name == "" {
		t.Skip("/etc/hosts has no name for 127.0.0.1 but localhost, which no proxy is used for")
	}
	for variable, wants := range map[string]bool{"NO_PROXY=other.example": true, "NO_PROXY=" + name: false} {
		w := newWorld(t, sandbox.Config{})
		address := w.secure(name)
		proxy := newSpy(t, address)
		_, port, _ := net.SplitHostPort(address)
		w.env = append(w.env, "HTTPS_PROXY=http://"+proxy.Addr().String(), variable)
		w.url = "https://" + net.JoinHostPort(name, port)
		w.start("--store", "memory")
		w.login("--keep-client-secret")
		w.must("", "bloq-agent", "refresh")
		connects, heard := proxy.said()
		if used := len(connects) > 0; used != wants {
			t.Errorf("%s: the proxy was asked for %q", variable, connects)
		}
		for _, c := range connects {
			if c != "CONNECT "+net.JoinHostPort(name, port) {
				t.Errorf("%s: %s", variable, c)
			}
		}
		if wants && len(connects) < 3 {
			t.Errorf("login, client keys and a refresh made %d connections", len(connects))
		}
		for secret, what := range w.secrets.all() {
			for _, part := range parts(secret) {
				if strings.Contains(heard, part) {
					t.Errorf("the proxy saw the %s", what)
				}
			}
		}
	}
}

// A proxy that answers for the endpoint itself, with a certificate of its own,
// gets nothing.
func TestAProxyThatPlaysTheEndpointGetsNothing(t *testing.T) {
	name := loopbackName()
	if name == "" {
		t.Skip("/etc/hosts has no name for 127.0.0.1 but localhost, which no proxy is used for")
	}
	w := newWorld(t, sandbox.Config{})
	address := w.secure(name)
	var stolen bytes.Buffer
	var mu sync.Mutex
	impostor := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_ = r.Write(&stolen)
	}))
	impostor.Config.ErrorLog = log.New(io.Discard, "", 0) // nobody trusts it, which is what is wanted
	impostor.StartTLS()
	t.Cleanup(impostor.Close)
	proxy := newSpy(t, impostor.Listener.Addr().String())
	_, port, _ := net.SplitHostPort(address)
	w.env = append(w.env, "HTTPS_PROXY=http://"+proxy.Addr().String())
	w.url = "https://" + net.JoinHostPort(name, port)
	w.start("--store", "memory")
	r := w.run(w.pass+"\n", "bloq-agent", "login", "--accounts-url", w.url, "--user", w.user, "--password-stdin")
	if r.code != ipc.ExitUnavailable || !strings.Contains(r.stderr, "certificate") {
		t.Errorf("%+v", r)
	}
	connects, heard := proxy.said()
	mu.Lock()
	defer mu.Unlock()
	if len(connects) == 0 || stolen.Len() > 0 || strings.Contains(heard, w.pass) {
		t.Errorf("%q, %q", connects, stolen.String())
	}
}
