package systemd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tool skips where a tool is missing, but in `make e2e`, which promises all.
func tool(t *testing.T, name string) {
	t.Helper()
	if os.Getenv("BLOQ_E2E") == "" {
		t.Skip("builds packages: make e2e")
	}
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("no %[1]s: apt-get install -y --no-install-recommends %[1]s", name)
	}
}

// run runs a command here, and returns its lines, sorted.
func run(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	return lines
}

// The same sources make the same bytes, wherever and whenever.
func TestThePackagesAreReproducible(t *testing.T) {
	t.Parallel()
	tool(t, "dpkg-deb")
	first, firstRPM := build(t, "1.0.0")
	elsewhere := filepath.Join(t.TempDir(), "sources")
	run(t, "cp", "-r", "../..", elsewhere) // with today's dates
	make := exec.Command("unshare", "--uts", "sh", "-c", `hostname elsewhere && exec "$@"`, "sh",
		"make", "-s", "-C", elsewhere, "packages", "DIST="+elsewhere+"/dist", "VERSION=1.0.0", "PACKAGE_VERSION=1.0.0")
	make.Env = append(os.Environ(), "TZ=Pacific/Auckland", "LC_ALL=C")
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	same := func(path string) bool {
		again, err := os.ReadFile(filepath.Join(elsewhere, "dist", filepath.Base(path)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Equal(b, again)
	}
	if !same(first) || !same(firstRPM) {
		t.Errorf("two builds differ: .deb the same %v, .rpm the same %v", same(first), same(firstRPM))
	}
}

func TestThePackagesAreClean(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"lintian", "rpm", "rpmlint"} {
		tool(t, name)
	}
	deb, rpm := build(t, "1.0.0")
	for _, args := range [][]string{
		{"lintian", "--allow-root", "--fail-on", "error,warning", deb},
		{"rpm", "-K", "--nosignature", rpm},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", args[0], err, out)
		}
	}
	// In a host, and never here: rpmlint unpacks by cpio, and the names in this
	// kind of .rpm are absolute, so that it lands in /usr.
	h := boot(t)
	inside := "/var/tmp/" + filepath.Base(rpm)
	h.copyIn(rpm, inside, 0o644)
	h.copyIn("../../packaging/rpm/rpmlint.toml", "/var/tmp/rpmlint.toml", 0o644)
	out := h.must("root", "rpmlint", "-c", "/var/tmp/rpmlint.toml", inside)
	if !strings.Contains(out, " 0 errors, 0 warnings") { // it exits 0 with errors
		t.Errorf("rpmlint: %s", out)
	}
}

// `make install` and both packages put the same files in the same places, but
// for what each kind has of its own.
func TestThePackagesHoldWhatInstallInstalls(t *testing.T) {
	t.Parallel()
	tool(t, "rpm")
	deb, rpm := build(t, "1.0.0")
	root := t.TempDir()
	install := exec.Command("make", "-s", "-C", "../..", "install", "BIN="+t.TempDir(), "DESTDIR="+root, "PREFIX=/usr")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	own := []string{
		"usr/libexec/bloq-agent/instances", "usr/share/lintian/overrides/bloq-agent", "usr/share/licenses/bloq-agent/LICENSE",
		"usr/share/doc/bloq-agent/copyright", "usr/share/doc/bloq-agent/changelog.Debian.gz",
	}
	same := func(kind string, list []string) {
		t.Helper()
		want := run(t, "sh", "-c", "cd "+root+" && find * ! -type d")
		var got []string
		for _, name := range list {
			name = strings.TrimLeft(name, "./")
			if name != "" && !strings.HasSuffix(name, "/") && !slices.Contains(own, name) {
				got = append(got, strings.Replace(name, "zsh/vendor-completions", "zsh/site-functions", 1))
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s has\n%s\nand make install\n%s", kind, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	same("the .deb", run(t, "sh", "-c", "dpkg-deb --fsys-tarfile "+deb+" | tar t"))
	same("the .rpm", run(t, "sh", "-c", `rpm -qp --queryformat '[%{FILEMODES:perms} %{FILENAMES}\n]' `+rpm+` | sed -n 's/^[-l][^ ]* //p'`))
	for _, helper := range []string{
		"git-credential-bloq", "docker-credential-bloq", "terraform-credentials-bloq", "cargo-credential-bloq", "bloq-token-bazel", "bloq-token-pnpm",
	} {
		if to, err := os.Readlink(filepath.Join(root, "usr/bin", helper)); to != "bloq-token" {
			t.Errorf("%s: %q, %v", helper, to, err)
		}
		if _, err := os.Stat(filepath.Join(root, "usr/share/man/man1", helper+".1.gz")); err != nil {
			t.Error(err)
		}
	}
}

func TestInstallElsewhere(t *testing.T) {
	t.Parallel()
	tool(t, "make")
	root := t.TempDir()
	install := exec.Command("make", "-s", "-C", "../..", "install", "BIN="+t.TempDir(), "DESTDIR="+root, "PREFIX=/opt/bloq")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	unit, err := os.ReadFile(root + "/opt/bloq/lib/systemd/user/bloq-agent.service")
	if err != nil || !bytes.Contains(unit, []byte("\nExecStart=/opt/bloq/bin/bloq-agent serve\n")) {
		t.Errorf("%v\n%s", err, unit)
	}
}

// The scripts of the .rpm do as those of the .deb. --nodeps, because this machine
// has its shell from another kind of package.
func TestTheRPMRestartsAndRemoves(t *testing.T) {
	t.Parallel()
	h := boot(t)
	install := func(version string) {
		t.Helper()
		_, rpm := build(t, version)
		h.copyIn(rpm, "/var/tmp/package.rpm", 0o644)
		h.must("root", "rpm", "-U", "--nodeps", "/var/tmp/package.rpm")
	}
	found := func() string {
		return h.must("root", "sh", "-c", "pgrep -a bloq || :; find /etc /usr /run /var/lib -xdev -name '*bloq*'")
	}
	clean := found()
	install("1.0.0")
	h.startSandbox()
	u := h.serving()
	before := u.show("service", "MainPID")
	install("1.0.1")
	if u.show("service", "MainPID") == before {
		t.Error("the upgrade did not restart the agent")
	}
	u.mustToken()
	h.must("root", "systemctl", "stop", "sandbox.service")
	h.must("root", "rpm", "-e", "--nodeps", "bloq-agent")
	if got := found(); got != clean {
		t.Errorf("before:\n%s\nleft behind:\n%s", clean, got)
	}
}
