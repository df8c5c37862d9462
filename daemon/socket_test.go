package daemon

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bloq-agent/ipc/server"

	"github.com/rs/zerolog"
)

// A lineWriter hands each line of the log on.
type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

func (w lineWriter) mustSay(t *testing.T, text string) {
	t.Helper()
	select {
	case line := <-w:
		if !strings.Contains(line, text) {
			t.Errorf("got %s, want %s", line, text)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("not said: %s", text)
	}
}

// The daemon cannot make systemd's socket again. The log and systemctl status name
// the command that does, and systemd is not told that the daemon hangs.
func TestASocketOfSystemdsThatIsTakenAway(t *testing.T) {
	t.Setenv("MANAGERPID", "1")
	dir, err := os.MkdirTemp("", "bloq")
	do(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "d", "s")
	do(t, os.Mkdir(filepath.Dir(path), 0o700))
	l, err := net.Listen("unix", path)
	do(t, err)
	serving := server.New(l, http.NotFoundHandler(), server.Hooks{})
	go func() { _ = serving.Serve() }()
	defer func() { _ = serving.Close() }()
	lines := make(lineWriter)
	d := &Daemon{options: Options{Listener: l}, log: zerolog.New(lines)}
	go ownSocket{d}.keep(t.Context())
	do(t, os.RemoveAll(filepath.Dir(path)))
	want := "the socket " + path + " is gone, and only systemd can make it again: systemctl --user restart bloq-agent.socket"
	lines.mustSay(t, want)
	if line := statusLine(d); line != want {
		t.Errorf("STATUS=%s", line)
	}
	before := serving.Turns()
	for end := time.Now().Add(20 * time.Second); serving.Turns() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("to the watchdog it is dead")
		}
	}
}

// What keeps a socket of our own from being made again is told, and it is made as
// soon as that is mended.
func TestASocketIsMadeAsSoonAsItCanBe(t *testing.T) {
	dir, err := os.MkdirTemp("", "bloq")
	do(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "a", "b", "s")
	l, err := server.Listen(path)
	do(t, err)
	defer func() { _ = l.Close() }()
	lines := make(lineWriter)
	d := &Daemon{options: Options{Listener: l}, log: zerolog.New(lines)}
	go ownSocket{d}.keep(t.Context())
	do(t, os.RemoveAll(filepath.Join(dir, "a")))
	lines.mustSay(t, "the socket "+path+" is gone; it is made again when that is possible: mkdir "+filepath.Dir(path)+": no such file or directory")
	do(t, os.Mkdir(filepath.Join(dir, "a"), 0o700))
	lines.mustSay(t, "the socket was gone and has been made again")
	c, err := net.Dial("unix", path)
	do(t, err)
	do(t, c.Close())
}
