package e2e

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// tracked is what git ls-files lists in the checkout that the tests are in.
func tracked(t *testing.T, options ...string) []string {
	t.Helper()
	if _, err := os.Stat("../.git"); err != nil {
		t.Skip("these sources are no git checkout")
	}
	out, err := exec.Command("git", append([]string{"-C", "..", "ls-files", "-z"}, options...)...).CombinedOutput()
	if err != nil {
		t.Skipf("git ls-files: %v, %s", err, out)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
}

// A package or a program that is committed stays in every clone for good.
func TestOnlyTextIsTracked(t *testing.T) {
	names := tracked(t)
	total := 0
	for _, name := range names {
		b, err := os.ReadFile("../" + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and not committed yet
		}
		if err != nil {
			t.Error(err)
		}
		total += len(b)
		if len(b) > 200_000 {
			t.Errorf("%s has %d bytes, more than 200 KB", name, len(b))
		}
		if bytes.IndexByte(b, 0) >= 0 {
			t.Errorf("%s is binary", name)
		}
	}
	t.Logf("%d files, %d bytes", len(names), total)
	for _, name := range tracked(t, "--cached", "--ignored", "--exclude-standard") {
		t.Errorf("%s is tracked, and .gitignore says that it must not be", name)
	}
}

// A mail address or a homepage that nobody reads is worse than none. What examples
// show is in the domains that are reserved for them.
func TestNoAddressIsMadeUp(t *testing.T) {
	mail := regexp.MustCompile(`[\w.+-]+@[\w-]+\.[\w.-]*\w`)
	unit := regexp.MustCompile(`^bloq-agent@(USER)?\.`)
	example := regexp.MustCompile(`@(.*\.)?example(\.com)?$`)
	ours := regexp.MustCompile(`^(packaging/[^/]*|packaging/(deb|rpm)/.*|systemd/.*|SECURITY\.md|CHANGELOG\.md|LICENSE)$`)
	page := regexp.MustCompile(`(?mi)^\s*(homepage|url|vendor|bugs|documentation|defined-by|support)[:=].*`)
	local := regexp.MustCompile(`^(Documentation=man:|Defined-By: bloq-agent$)`)
	for _, name := range tracked(t) {
		if strings.HasPrefix(name, "e2e/") || strings.HasPrefix(name, ".ci/") || strings.Contains(name, "testdata/") ||
			strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, "go.sum") {
			continue // nobody is shown these
		}
		b, err := os.ReadFile("../" + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, address := range mail.FindAllString(string(b), -1) {
			if !unit.MatchString(address) && (ours.MatchString(name) || !example.MatchString(address)) {
				t.Errorf("%s shows the address %s", name, address)
			}
		}
		for _, line := range page.FindAllString(string(b), -1) {
			if ours.MatchString(name) && !local.MatchString(line) {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}
