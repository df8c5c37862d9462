package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bloq-agent/store/trusted"
)

// authority makes a certificate, in PEM.
func authority(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	do(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	do(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// systemAt has the system's certificates in a file and a directory of the test's.
func systemAt(t *testing.T) (file, dir string) {
	t.Helper()
	base := t.TempDir()
	file, dir = filepath.Join(base, "bundle.crt"), filepath.Join(base, "certs")
	do(t, os.Mkdir(dir, 0o700))
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", filepath.Join(base, "missing")+":"+dir)
	return file, dir
}

// Where Go looks, we look: the pools are the same.
func TestRootsAreThoseOfGo(t *testing.T) {
	if os.Getenv("SSL_CERT_FILE")+os.Getenv("SSL_CERT_DIR") != "" {
		t.Skip("the places are others here")
	}
	ours, err := ReadRoots("")
	do(t, err)
	theirs, err := x509.SystemCertPool()
	do(t, err)
	if !ours.Equal(theirs) {
		t.Error("Go trusts others")
	}
}

func TestRootsAreReadEachTime(t *testing.T) {
	file, dir := systemAt(t)
	own := filepath.Join(filepath.Dir(file), "own.pem")
	want := x509.NewCertPool()
	check := func(what string) {
		t.Helper()
		if got, err := ReadRoots(own); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, another set than wanted", what, err)
		}
	}
	check("nothing is there")
	for _, path := range []string{file, filepath.Join(dir, "a.pem"), own} {
		cert := authority(t)
		want.AppendCertsFromPEM(cert)
		do(t, os.WriteFile(path, cert, 0o600))
		check(path)
	}
	do(t, os.Mkdir(filepath.Join(dir, "java"), 0o700))
	do(t, os.WriteFile(filepath.Join(dir, "README"), []byte("none here"), 0o600))
	for name, to := range map[string]string{"1234.0": "a.pem", "gone.pem": "/nowhere/x", "again.pem": file} {
		do(t, os.Symlink(to, filepath.Join(dir, name)))
	}
	check("beside links, a directory and other files")
	want = x509.NewCertPool()
	want.AppendCertsFromPEM(authority(t))
	do(t, os.RemoveAll(dir))
	do(t, os.Remove(own))
	last, err := os.ReadFile(file)
	do(t, err)
	want = x509.NewCertPool()
	want.AppendCertsFromPEM(last)
	check("the others are gone")
}

// A file that others can write is left out and named, and the rest is read.
func TestRootsThatOthersCouldHaveWritten(t *testing.T) {
	file, dir := systemAt(t)
	good := authority(t)
	want := x509.NewCertPool()
	want.AppendCertsFromPEM(good)
	open := filepath.Join(dir, "open.pem")
	do(t, os.WriteFile(file, good, 0o600))
	do(t, os.WriteFile(open, authority(t), 0o600))
	do(t, os.Chmod(open, 0o646))
	got, err := ReadRoots("")
	if !got.Equal(want) {
		t.Error("another set than wanted")
	}
	if text := open + " can be written by others (chmod o-w " + open + ")"; err == nil || err.Error() != text || trusted.Mend(err) != "chmod o-w "+open {
		t.Errorf("got  %v\nwant %s", err, text)
	}
}

func TestTheHintOnAnAuthority(t *testing.T) {
	t.Setenv("SSL_CERT_FILE", "")
	dir := t.TempDir()
	was := anchors
	t.Cleanup(func() { anchors = was })
	anchors[0].dir = filepath.Join(dir, "missing")
	anchors = append(anchors[:1:1], struct{ dir, command string }{dir, "update-ca-trust"})
	const trust = "if you trust that authority, "
	if got, want := (Config{}).TrustHint(), trust+"copy its certificate to "+dir+"/NAME.crt, then: sudo update-ca-trust"; got != want {
		t.Errorf("%q", got)
	}
	if got := (Config{CAFile: "/own.pem"}).TrustHint(); got != trust+"add its certificate to /own.pem" {
		t.Errorf("%q", got)
	}
	anchors = anchors[:1]
	if got := (Config{}).TrustHint(); !strings.Contains(got, "tls_ca_file") {
		t.Errorf("%q", got)
	}
	t.Setenv("SSL_CERT_FILE", "/bundle.crt")
	if got := (Config{}).TrustHint(); got != trust+"add its certificate to /bundle.crt" {
		t.Errorf("%q", got)
	}
}

func BenchmarkReadRoots(b *testing.B) {
	for b.Loop() {
		if _, err := ReadRoots(""); err != nil {
			b.Fatal(err)
		}
	}
}
