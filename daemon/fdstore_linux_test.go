package daemon

import (
	"fmt"
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

// A manager plays systemd's part: it holds descriptors by their names.
type manager struct {
	conn *net.UnixConn
	room int // how many it holds at the most; what is more it drops in silence

	mu   sync.Mutex
	held map[string][]*os.File
	log  []string
}

func newManager(t *testing.T, room int) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "bloq-nm-")
	do(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	do(t, err)
	m := &manager{conn: conn, room: room, held: map[string][]*os.File{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.run()
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
		for _, list := range m.held {
			for _, f := range list {
				_ = f.Close()
			}
		}
	})
	t.Setenv("NOTIFY_SOCKET", path)
	return m
}

func (m *manager) run() {
	for {
		data, oob := make([]byte, 4096), make([]byte, 256)
		n, oobn, _, _, err := m.conn.ReadMsgUnix(data, oob)
		if err != nil {
			return
		}
		var files []*os.File
		messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for _, c := range messages {
			fds, _ := unix.ParseUnixRights(&c)
			for _, fd := range fds {
				files = append(files, os.NewFile(uintptr(fd), ""))
			}
		}
		m.take(string(data[:n]), files)
	}
}

func (m *manager) take(message string, files []*os.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, message)
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
		files = append(files, m.held[name]...)
		delete(m.held, name)
	}
	for _, f := range files {
		_ = f.Close()
	}
}

// passed are the descriptors as a daemon that starts gets them: named, and each
// a duplicate.
func (m *manager) passed(t *testing.T) []*os.File {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*os.File
	for _, name := range slices.Sorted(maps.Keys(m.held)) {
		for _, f := range m.held[name] {
			fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
			do(t, err)
			out = append(out, os.NewFile(uintptr(fd), name))
		}
	}
	return out
}

func keptList(tokens ...string) []keptToken {
	var list []keptToken
	for i, tok := range tokens {
		list = append(list, keptToken{ID: fmt.Sprint(i), Generation: 7, Token: []byte(tok), Expiry: time.Now().Add(time.Hour)})
	}
	return list
}

func TestTokensOutliveTheDaemon(t *testing.T) {
	m := newManager(t, 3)
	k := newTokenKeeper(newFDStore())
	for i := range 5 { // the names alternate
		do(t, k.keep(keptList(fmt.Sprint("token-", i), "other")))
		if files := m.passed(t); len(files) != 1 {
			t.Fatalf("systemd holds %d files", len(files))
		}
	}
	for range 3 { // a daemon after the other, which keeps in its turn
		k = newTokenKeeper(newFDStore())
		list, err := k.takeKept(m.passed(t))
		if err != nil || len(list) != 2 || string(list[0].Token) != "token-4" || list[0].Generation != 7 {
			t.Fatalf("%v, %v", list, err)
		}
		do(t, k.keep(list))
	}
	do(t, k.keep(nil))
	if files := m.passed(t); len(files) != 0 {
		t.Errorf("after there is nothing to keep systemd holds %d files", len(files))
	}
	if got := k.state(); got != "nothing to keep" {
		t.Error(got)
	}
}

// A crash between the two halves of a change leaves both files: the newer counts.
func TestOfTwoFilesTheNewerCounts(t *testing.T) {
	m := newManager(t, 3)
	k := newTokenKeeper(newFDStore())
	do(t, k.keep(keptList("old")))
	do(t, k.store.put(name(1-k.slot), mustEncode(t, kept{Version: keptVersion, Serial: 9, Profiles: keptList("new")})))
	next := newTokenKeeper(newFDStore())
	list, err := next.takeKept(m.passed(t))
	if err != nil || len(list) != 1 || string(list[0].Token) != "new" {
		t.Errorf("%v, %v", list, err)
	}
	do(t, next.keep(keptList("newest")))
	if files := m.passed(t); len(files) != 1 {
		t.Errorf("systemd holds %d files", len(files))
	}
}

// What is held cannot be changed behind our back, and damage is not believed.
func TestAKeptFileIsSealed(t *testing.T) {
	m := newManager(t, 3)
	do(t, newTokenKeeper(newFDStore()).keep(keptList("token")))
	f := m.passed(t)[0]
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it can be written")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("it can be cut")
	}
	do(t, f.Close())
	damaged, err := os.CreateTemp(t.TempDir(), "")
	do(t, err)
	_, err = damaged.WriteString(`{"version":1,"serial":99,"profiles":[{"token":"secret`)
	do(t, err)
	list, err := newTokenKeeper(nil).takeKept([]*os.File{damaged})
	if err == nil || list != nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v, %v", list, err)
	}
}

func TestWithoutSystemdNothingIsKept(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	k := newTokenKeeper(newFDStore())
	do(t, k.keep(keptList("token")))
	if got := k.state(); !strings.HasPrefix(got, "no: ") {
		t.Error(got)
	}
}

func TestAManagerThatIsGoneIsSaid(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", t.TempDir()+"/none")
	k := newTokenKeeper(newFDStore())
	if err := k.keep(keptList("token")); err == nil {
		t.Error("kept by nobody")
	}
	if got := k.state(); !strings.HasPrefix(got, "no: ") {
		t.Error(got)
	}
}
