package config

import (
	"cmp"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"bloq-agent/store/trusted"
)

// Where the system's certificates are, as in crypto/x509/root_linux.go: the first
// file that is there, and all that is in the directories.
var (
	certFiles = []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
		"/etc/ssl/ca-bundle.pem",                            // openSUSE
		"/etc/pki/tls/cacert.pem",                           // OpenELEC
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL 7
		"/etc/ssl/cert.pem",                                 // Alpine
	}
	certDirs = []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}
)

// ReadRoots reads which certificates are trusted now: the system's and those in
// caFile, unless that is "". Go reads the system's once in the life of a process.
// The error is the first file that was refused; the pool holds what the others
// have. It is nil where only Go knows the system's certificates.
func ReadRoots(caFile string) (*x509.CertPool, error) {
	if runtime.GOOS != "linux" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	var refused error
	add := func(path string) bool {
		pem, err := trusted.ReadFile(path)
		switch {
		case err == nil:
			pool.AppendCertsFromPEM(pem)
		case !errors.Is(err, fs.ErrNotExist):
			refused = cmp.Or(refused, err)
		}
		return err == nil
	}
	files, dirs := certFiles, certDirs
	if file := os.Getenv("SSL_CERT_FILE"); file != "" {
		files = []string{file}
	}
	if list := os.Getenv("SSL_CERT_DIR"); list != "" {
		dirs = strings.Split(list, ":")
	}
	for _, file := range files {
		if add(file) {
			break
		}
	}
	for _, dir := range dirs {
		for _, path := range certsIn(dir) {
			add(path)
		}
	}
	if caFile != "" {
		add(caFile)
	}
	return pool, refused
}

// certsIn returns the files of dir, each once: OpenSSL finds them by links beside
// them. A directory that cannot be read has none, as for Go.
func certsIn(dir string) (paths []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if to, err := os.Readlink(path); err == nil && !strings.Contains(to, "/") {
			continue
		}
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
			paths = append(paths, path)
		}
	}
	return paths
}

// anchors are where a person puts an authority for the whole system, and the
// command that makes it trusted.
var anchors = []struct{ dir, command string }{
	{"/usr/local/share/ca-certificates", "update-ca-certificates"},   // Debian, Alpine
	{"/etc/pki/ca-trust/source/anchors", "update-ca-trust"},          // Fedora
	{"/etc/ca-certificates/trust-source/anchors", "update-ca-trust"}, // Arch
	{"/etc/pki/trust/anchors", "update-ca-certificates"},             // openSUSE
}

// TrustHint is what a person does about an authority that is not trusted. It is not
// done without a thought: the authority may be somebody between us and Bloq.
func (c Config) TrustHint() string {
	const trust = "if you trust that authority, "
	if file := cmp.Or(c.CAFile, os.Getenv("SSL_CERT_FILE")); file != "" {
		return trust + "add its certificate to " + file
	}
	for _, a := range anchors {
		if fi, err := os.Stat(a.dir); err == nil && fi.IsDir() {
			return trust + "copy its certificate to " + a.dir + "/NAME.crt, then: sudo " + a.command
		}
	}
	return trust + "set tls_ca_file in the configuration to its certificate"
}
