package systemd

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// activated is the child's part of TestActivation.
const activated = "BLOQ_TEST_ACTIVATED"

func TestActivation(t *testing.T) {
	if want := os.Getenv(activated); want != "" {
		// Only the child knows the pid that systemd would have set.
		t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		l, kept, err := Activated()
		if got := err == nil && l != nil; got != (want == "good" || want == "kept") {
			t.Errorf("%s: %v, %v", want, l, err)
		}
		if (len(kept) == 2) != (want == "kept") {
			t.Errorf("%s: %d descriptors are kept", want, len(kept))
		}
		for _, v := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
			if _, set := os.LookupEnv(v); set {
				t.Errorf("%s is left for children", v)
			}
		}
		return
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	do(t, err)
	defer func() { _ = l.Close() }()
	f, err := l.File()
	do(t, err)
	defer func() { _ = f.Close() }()
	for want, names := range map[string]string{"good": "bloq-agent", "bad name": "other", "two": "bloq-agent:bloq-agent", "kept": "bloq-agent:tokens-1:tokens-0"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestActivation$", "-test.v")
		fds := strings.Count(names, ":") + 1
		cmd.Env = []string{activated + "=" + want, "LISTEN_FDS=" + string(rune('0'+fds)), "LISTEN_FDNAMES=" + names}
		for range fds {
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", want, err, out)
		}
	}
	if l, _, err := Activated(); l != nil || err != nil {
		t.Errorf("without systemd: %v, %v", l, err)
	}
}

// Whatever names are passed: one socket of ours at most, and nothing that is not
// ours.
func FuzzOneSocketAndNothingForeign(f *testing.F) {
	for _, names := range []string{"", "bloq-agent", "bloq-agent:tokens-0:tokens-1", "tokens-1", "bloq-agent:bloq-agent", "other", "bloq-agent:"} {
		f.Add(names)
	}
	f.Fuzz(func(t *testing.T, variable string) {
		names := strings.Split(variable, ":")
		socket, err := findSocket(names)
		sockets, foreign := 0, 0
		for _, name := range names {
			switch {
			case name == SocketName:
				sockets++
			case !strings.HasPrefix(name, keptPrefix):
				foreign++
			}
		}
		if (err == nil) != (sockets <= 1 && foreign == 0) {
			t.Errorf("%q: %v", variable, err)
		}
		if err == nil && (socket >= 0) != (sockets == 1) || socket >= 0 && names[socket] != SocketName {
			t.Errorf("%q: the socket is %d", variable, socket)
		}
	})
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
