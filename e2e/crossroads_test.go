package e2e

import (
	"bufio"
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
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A crossroads is two ports of this machine that both speak http and https, so
// that origins which differ in their scheme alone can be had. It redirects who
// comes to one origin with credentials.
type crossroads struct {
	first, second string // the ports
	ca            string // a file with the authority of its certificate
	serve         http.Handler

	mu   sync.Mutex
	turn turn
	seen []arrival
}

// A turn is one redirect. From asks for credentials first; where demands is set,
// the other origin does as well.
type turn struct {
	from, to string // origins; to may have a path, and is "" for no redirect
	status   int
	demands  bool
}

// An arrival is a request as it came, with the password of its user.
type arrival struct{ origin, text string }

func newCrossroads(t *testing.T, serve http.Handler) *crossroads {
	t.Helper()
	cert, ca := certificate(t)
	c := &crossroads{ca: ca, serve: serve}
	for _, port := range []*string{&c.first, &c.second} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, *port, _ = net.SplitHostPort(l.Addr().String())
		both := &bothSchemes{Listener: l, tls: &tls.Config{Certificates: []tls.Certificate{cert}}, ready: make(chan net.Conn), done: make(chan struct{})}
		srv := &http.Server{Handler: c, ErrorLog: log.New(io.Discard, "", 0)}
		go both.run()
		go func() { _ = srv.Serve(both) }() // ends with the test
		t.Cleanup(func() { _ = srv.Close() })
	}
	return c
}

// certificate makes one for localhost and 127.0.0.1, and a file with its
// authority.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	sign := func(c, parent *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if by == nil {
			by = key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		return der, key
	}
	begin, end := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "crossroads"}, NotBefore: begin, NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, rootKey := sign(root, root, nil)
	leaf, leafKey := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: begin, NotAfter: end, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, root, rootKey)
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{leaf}, PrivateKey: leafKey}, path
}

// bothSchemes takes a connection for TLS if its first byte is that of TLS.
type bothSchemes struct {
	net.Listener
	tls   *tls.Config
	ready chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (b *bothSchemes) run() {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return
		}
		go func() { // ends with the client's first byte
			r := bufio.NewReader(conn)
			first, err := r.Peek(1)
			if err != nil {
				_ = conn.Close()
				return
			}
			var c net.Conn = &peeked{conn, r}
			if first[0] == 0x16 {
				c = tls.Server(c, b.tls)
			}
			select {
			case b.ready <- c:
			case <-b.done:
				_ = conn.Close()
			}
		}()
	}
}

func (b *bothSchemes) Accept() (net.Conn, error) {
	select {
	case c := <-b.ready:
		return c, nil
	case <-b.done:
		return nil, net.ErrClosed
	}
}

func (b *bothSchemes) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.Listener.Close()
}

type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

func originOf(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

func (c *crossroads) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	origin, anonymous := originOf(r), r.Header.Get("Authorization") == ""
	dump, _ := httputil.DumpRequest(r, false)
	_, password, _ := r.BasicAuth()
	c.mu.Lock()
	c.seen = append(c.seen, arrival{origin, string(dump) + password})
	turn, lost := c.turn, len(c.seen) > 25 // some tools would go round for ever
	c.mu.Unlock()
	path, moved := strings.CutPrefix(r.URL.Path, "/moved")
	switch {
	case anonymous && (origin == turn.from || turn.demands):
		w.Header()["Www-Authenticate"] = []string{`Basic realm="bloq"`}
		w.WriteHeader(http.StatusUnauthorized)
	case origin == turn.from && turn.to != "" && !moved && !lost:
		w.Header().Set("Connection", "close") // curl would ask for http on its connection for https
		w.Header().Set("Location", turn.to+r.URL.RequestURI())
		w.WriteHeader(turn.status)
	default:
		r.URL.Path = path
		c.serve.ServeHTTP(w, r)
	}
}

func (c *crossroads) set(t turn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn, c.seen = t, nil
}

// tokens counts the requests since the last turn that held a token, whichever: a
// git whose token is refused has the daemon get another one. It counts those at
// the origin that the turn starts from, and returns the first lines of the others.
func (c *crossroads) tokens() (home int, elsewhere []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.seen {
		switch line, _, _ := strings.Cut(a.text, "\r\n"); {
		case !strings.Contains(a.text, "eyJ"): // how every token of the sandbox begins
		case a.origin == c.turn.from:
			home++
		default:
			elsewhere = append(elsewhere, a.origin+" "+line)
		}
	}
	return home, elsewhere
}
