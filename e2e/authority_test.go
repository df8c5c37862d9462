package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
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
	"sync/atomic"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

// An inspected network is one whose TLS has another authority when it is asked for.
type inspected struct {
	t    *testing.T
	cert atomic.Pointer[tls.Certificate]
}

// change gives the endpoint a certificate of a new authority, and returns that in
// PEM.
func (n *inspected) change() []byte {
	n.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(n.t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(n.t, err)
	n.cert.Store(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// newInspected is a world with a login, whose daemon trusts the system's bundle. First is
// the authority in it.
func newInspected(t *testing.T) (w *world, n *inspected, bundle string, first []byte) {
	t.Helper()
	w = newWorld(t, sandbox.Config{})
	n, bundle = w.inspect(), filepath.Join(w.dir, "authorities.pem")
	first = n.change()
	must(t, os.WriteFile(bundle, first, 0o600))
	w.env = append(w.env, "SSL_CERT_FILE="+bundle, "SSL_CERT_DIR="+filepath.Join(w.dir, "none"))
	w.start("--store", "file")
	w.login()
	return w, n, bundle, first
}

// hangUpAndDistrust sends SIGHUP, after which the daemon must refuse the endpoint's
// authority.
func (w *world) hangUpAndDistrust(events <-chan ipc.Event) {
	w.t.Helper()
	must(w.t, w.daemon.Process.Signal(hup))
	w.await(events, "the configuration is read", isReload)
	deadline := time.Now().Add(20 * time.Second)
	for w.run("", "bloq-agent", "refresh").code == 0 { // the reload reaches the profile later
		if time.Now().After(deadline) {
			w.t.Fatal("an authority that was removed is trusted")
		}
	}
	w.failsBy(events, "unknown authority")
}

// inspect has w's endpoint speak TLS with certificates that change.
func (w *world) inspect() *inspected {
	w.t.Helper()
	n := &inspected{t: w.t}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.secrets.serve(w.api.Load(), rw, r)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are what is wanted
	srv.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{*n.cert.Load()}}, nil
	}}
	srv.StartTLS()
	w.t.Cleanup(srv.Close)
	w.url = srv.URL
	return n
}

// recovers waits until the profile has a new token by itself.
func (w *world) recovers(events <-chan ipc.Event) {
	w.t.Helper()
	w.await(events, "the daemon recovers by itself", func(e ipc.Event) bool { return e.Event == "recovered" })
}

// failsBy waits until the daemon says that a refresh failed by text.
func (w *world) failsBy(events <-chan ipc.Event, text string) {
	w.t.Helper()
	w.await(events, "a refresh fails by "+text, func(e ipc.Event) bool {
		return e.Event == "refresh failed" && strings.Contains(e.Status.LastError, text)
	})
}

// A new authority of the system, or in tls_ca_file, needs neither a restart nor a
// signal. What the hints say is done, and helps.
func TestANewAuthorityNeedsNoRestart(t *testing.T) {
	for _, own := range []bool{false, true} { // tls_ca_file
		w := newWorld(t, sandbox.Config{})
		n := w.inspect()
		bundle := filepath.Join(w.dir, "authorities.pem")
		must(t, os.WriteFile(bundle, n.change(), 0o600))
		if own {
			w.configure("tls_ca_file = \"" + bundle + "\"\n")
		} else {
			w.env = append(w.env, "SSL_CERT_FILE="+bundle)
		}
		w.env = append(w.env, "SSL_CERT_DIR="+filepath.Join(w.dir, "none"))
		w.start("--store", "file")
		w.login()
		events := w.events()
		w.must("", "bloq-agent", "refresh")
		next := n.change()
		w.wants(w.run("", "bloq-agent", "refresh"), 5, "certificate signed by unknown authority", "if you trust that authority, add its certificate to "+bundle)
		w.must("", "bloq-token") // which still has a token
		if r := w.run("", "bloq-agent", "status"); !strings.Contains(r.stderr, "hint: if you trust that authority, ") {
			t.Errorf("status: %+v", r)
		}
		must(t, os.WriteFile(bundle, next, 0o600))
		w.recovers(events)

		next = n.change()
		must(t, os.WriteFile(bundle, next, 0o600))
		must(t, os.Chmod(bundle, 0o646))
		refused := bundle + " can be written by others (chmod o-w " + bundle + ")"
		if r := w.run("", "bloq-agent", "refresh"); !strings.Contains(r.stderr, refused) || !strings.Contains(r.stderr, "hint: chmod o-w "+bundle+"\n") {
			t.Errorf("a file that others can write: %+v", r)
		}
		w.mustSh("chmod o-w " + bundle)
		w.recovers(events)
		w.must("", "bloq-agent", "refresh")
		w.noReuse()
	}
}

// SIGHUP reads the system's certificates again, in both directions: an authority
// that was removed is not trusted any more.
func TestSIGHUPReadsTheSystemsAuthorities(t *testing.T) {
	w, _, bundle, first := newInspected(t)
	events := w.events()
	w.must("", "bloq-agent", "refresh")
	other := (&inspected{t: t}).change()
	must(t, os.WriteFile(bundle, other, 0o600))
	w.must("", "bloq-agent", "refresh")
	w.hangUpAndDistrust(events)
	must(t, os.WriteFile(bundle, bytes.Join([][]byte{other, first}, nil), 0o600))
	must(t, os.Chmod(bundle, 0o646))
	must(t, w.daemon.Process.Signal(hup))
	w.logged(`"certificates not read again"`)
	w.mustSh("chmod o-w " + bundle)
	w.recovers(events)
	w.noReuse()
}

// What SIGHUP puts in force is compared with what a profile trusts, which may have
// noticed another authority since.
func TestSIGHUPForgetsAnAuthorityThatWasNoticed(t *testing.T) {
	w, n, bundle, first := newInspected(t)
	events := w.events()
	w.must("", "bloq-agent", "refresh") // Go reads the system's now, and never again
	must(t, os.WriteFile(bundle, n.change(), 0o600))
	w.must("", "bloq-agent", "refresh")
	must(t, os.WriteFile(bundle, first, 0o600))
	w.hangUpAndDistrust(events)
}

// A tls_ca_file that adds nothing when it is configured is read all the same when it
// is needed.
func TestATLSCAFileThatAddsNothingAtFirst(t *testing.T) {
	w, n, _, first := newInspected(t)
	own := filepath.Join(w.dir, "own.pem")
	must(t, os.WriteFile(own, first, 0o600))
	events := w.events()
	w.configure("tls_ca_file = \"" + own + "\"\n")
	w.await(events, "the configuration is read", isReload)
	must(t, os.WriteFile(own, n.change(), 0o600))
	w.must("", "bloq-agent", "refresh")
}
