package trusted_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
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
		"a file of an unknown user": {func() error { return os.Chown(p.file, 1001, 1000) }, "another user"},
		"a directory of an unknown user in a sticky one": {func() error { return os.Chown(p.home, 1001, 1000) }, "another user"},
	} {
		must(t, tt.spoil())
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestAUserNamespaceWithoutRoot$")
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), child+"="+p.file, "GORACE=atexit_sleep_ms=0")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWUSER, Credential: &syscall.Credential{Uid: 1000, Gid: 1000, NoSetGroups: true},
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 1000, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 1000, Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		_, answer, found := strings.Cut(string(out), "answer: ")
		answer, _, _ = strings.Cut(answer, "\n")
		if !found || (tt.want == "") != (answer == "") || !strings.Contains(answer, tt.want) {
			t.Errorf("%s: %q, %v", name, out, err)
		}
		must(t, os.Chown(p.home, 1000, 1000))
		must(t, os.Chown(p.file, 1000, 1000))
	}
}
