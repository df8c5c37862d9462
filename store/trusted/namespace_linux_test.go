package trusted_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/store/trusted"
	"bloq-agent/userns/usernstest"
)

// In a user namespace that does not know root, / belongs to the overflow user.
// Nobody could have a configuration there otherwise.
func TestAUserNamespaceWithoutRoot(t *testing.T) {
	const child = "BLOQ_TRUSTED_PATH"
	if path := os.Getenv(child); path != "" {
		e := reads(t, path)
		_, _ = os.Stdout.WriteString("answer: ")
		if e != nil {
			_, _ = os.Stdout.WriteString(e.Error())
		}
		_, _ = os.Stdout.WriteString("\n")
		return
	}
	needsRoot(t)
	p := newPlace(t)
	must(t, os.Chmod(filepath.Dir(p.tmp), 0o755))
	must(t, os.Chmod(p.file, 0o644))
	for _, path := range []string{filepath.Dir(p.tmp), p.home, p.dir, p.file} {
		must(t, os.Chown(path, 1000, 1000))
	}
	for name, tt := range map[string]struct {
		spoil func() error
		want  string
	}{
		"as it is":                  {func() error { return nil }, ""},
		"a file of an unknown user": {func() error { return os.Chown(p.file, 1001, 1000) }, p.file + " belongs to another user, whom this user namespace does not know"},
		"a directory of an unknown user in a sticky one": {func() error { return os.Chown(p.home, 1001, 1000) }, p.file + ": " + p.home + " belongs to another user, whom this user namespace does not know"},
	} {
		must(t, tt.spoil())
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestAUserNamespaceWithoutRoot$")
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), child+"="+p.file, "HOME="+p.home, "GORACE=atexit_sleep_ms=0")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWUSER, Credential: &syscall.Credential{Uid: 1000, Gid: 1000, NoSetGroups: true},
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 1000, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 1000, Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		_, answer, found := strings.Cut(string(out), "answer: ")
		answer, _, _ = strings.Cut(answer, "\n")
		if !found || answer != tt.want { // and no command, which could not work
			t.Errorf("%s: %q, %v", name, out, err)
		}
		must(t, os.Chown(p.home, 1000, 1000))
		must(t, os.Chown(p.file, 1000, 1000))
	}
}

// Each of these is our own, and could be anybody's.
func TestAUserNamespaceWhereWeCouldBeAnybody(t *testing.T) {
	if !usernstest.Inside(t) {
		return
	}
	const reason = " may belong to another user: this user namespace shows those that it does not know with our number, 65534"
	p := newPlace(t)
	t.Setenv("HOME", p.home)
	if e := reads(t, p.file); e == nil || !strings.HasSuffix(e.Error(), reason) {
		t.Errorf("%v", e)
	}
	if _, err := trusted.ReadOwn(p.file); err == nil || err.Error() != p.file+reason {
		t.Errorf("a secret: %v", err)
	}
	etc := t.TempDir()
	trusted.UseEtc(t, etc)
	must(t, os.WriteFile(etc+"/passwd", []byte("nobody:x:65534:65534::/:/bin/sh\n"), 0o600))
	must(t, os.WriteFile(etc+"/group", []byte("nobody:x:65534:\n"), 0o600))
	if trusted.OwnGroup(65534) {
		t.Error("our group has no other member")
	}
}
