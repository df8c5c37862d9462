package systemd

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// A service manager that does not read must not stop the refreshers.
func TestNotifyDoesNotWaitForAManagerThatDoesNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// net.unix.max_dgram_qlen is 10 unless somebody raised it.
		for range 20 {
			notify("STATUS=x")
		}
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("notify waits for ever")
	}
	buf := make([]byte, 64)
	if n, err := l.Read(buf); err != nil || string(buf[:n]) != "STATUS=x" {
		t.Errorf("%q, %v", buf[:n], err)
	}
}
