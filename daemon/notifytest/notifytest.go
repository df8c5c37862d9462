//go:build linux

// Package notifytest plays the part of systemd that a service talks to: it
// hears what is said to $NOTIFY_SOCKET, and holds descriptors by their names.
package notifytest

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Manager is one service's.
type Manager struct {
	// Path is for $NOTIFY_SOCKET.
	Path string

	conn *net.UnixConn
	room int

	mu      sync.Mutex
	held    map[string][]*os.File
	said    []string
	changed chan struct{} // closed at the next message
}

// New runs a Manager until the test ends. Its store has room for so many
// descriptors; as systemd does, it drops what is more in silence.
func New(t *testing.T, room int) *Manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "bloq-nm-") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	m := &Manager{Path: filepath.Join(dir, "notify"), room: room, held: map[string][]*os.File{}, changed: make(chan struct{})}
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.Path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends with the socket
		defer close(done)
		for m.hear() {
		}
	}()
	t.Cleanup(func() {
		_ = m.conn.Close()
		<-done
		for _, list := range m.held {
			closeAll(list)
		}
		_ = os.RemoveAll(dir)
	})
	return m
}

func (m *Manager) hear() bool {
	data, oob := make([]byte, 4097), make([]byte, 256)
	n, oobn, _, _, err := m.conn.ReadMsgUnix(data, oob)
	if err != nil {
		return false
	}
	var files []*os.File
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn]) // what is broken holds nothing
	for _, c := range messages {
		fds, _ := unix.ParseUnixRights(&c)
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), ""))
		}
	}
	if n > 4096 { // systemd drops it as a whole
		closeAll(files)
		return true
	}
	m.take(string(data[:n]), files)
	return true
}

func (m *Manager) take(message string, files []*os.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.said = append(m.said, message)
	close(m.changed)
	m.changed = make(chan struct{})
	_, name, _ := strings.Cut(message, "FDNAME=")
	count := 0
	for _, list := range m.held {
		count += len(list)
	}
	switch {
	case strings.HasPrefix(message, "FDSTORE=1") && count < m.room:
		m.held[name] = append(m.held[name], files...)
		return
	case strings.HasPrefix(message, "FDSTOREREMOVE=1"):
		closeAll(m.held[name])
		delete(m.held, name)
	}
	closeAll(files) // a barrier's pipe ends with this
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// Held are duplicates of the descriptors, named, as the next start of the
// service gets them.
func (m *Manager) Held(t *testing.T) []*os.File {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*os.File
	for _, name := range slices.Sorted(maps.Keys(m.held)) {
		for _, f := range m.held[name] {
			fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, os.NewFile(uintptr(fd), name))
		}
	}
	return out
}

// Await returns when f wants what was said so far.
func (m *Manager) Await(t *testing.T, what string, f func(said []string) bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		m.mu.Lock()
		said, changed := slices.Clone(m.said), m.changed
		m.mu.Unlock()
		if f(said) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("was not said in 20 s: %s\n%q", what, said)
		}
	}
}

// Said is how many messages there were.
func (m *Manager) Said() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.said)
}
