package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bloq-agent/ipc"
)

const (
	asOther = 65534 // the user that serves, in what follows
	asThird = 65533
	// inRole tells a child of TestOnlyTheServersUserIsHeard what it is to do,
	// and withSocket with which socket.
	inRole     = "BLOQ_TEST_ROLE"
	withSocket = "BLOQ_TEST_SOCKET"
	// withDescriptor names the listening descriptor that the child inherits.
	withDescriptor = "BLOQ_TEST_DESCRIPTOR"
)

// Neither another user nor root is heard by a server of an ordinary user, on a
// socket that systemd passed or one of our own, with its modes forced open.
func TestOnlyTheServersUserIsHeard(t *testing.T) {
	switch os.Getenv(inRole) {
	case "serve":
		serveAsChild(t)
		return
	case "dial":
		if got := dialAs(t, os.Getenv(withSocket)); got != "" {
			t.Errorf("heard %q", got)
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to be two users: sudo go test ./ipc/server")
	}
	self := readableSelf(t)
	for _, kind := range []string{"own", "activated"} {
		t.Run(kind, func(t *testing.T) {
			dir := shortDir(t)
			do(t, os.Chmod(dir, 0o755))
			path := filepath.Join(dir, "d", "s")
			do(t, os.Mkdir(filepath.Dir(path), 0o700))
			do(t, os.Chown(filepath.Dir(path), asOther, asOther))
			server := childAs(self, asOther, "serve", path)
			if kind == "activated" {
				l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
				do(t, err)
				defer func() { _ = l.Close() }()
				f, err := l.File()
				do(t, err)
				defer func() { _ = f.Close() }()
				server.ExtraFiles = []*os.File{f}
				server.Env = append(server.Env, withDescriptor+"=3")
			}
			out, err := server.StdoutPipe()
			do(t, err)
			stop, err := server.StdinPipe()
			do(t, err)
			do(t, server.Start())
			lines := bufio.NewScanner(out)
			if !lines.Scan() || lines.Text() != "ready" {
				t.Fatalf("the server says %q", lines.Text())
			}
			do(t, os.Chmod(path, 0o666))
			do(t, os.Chmod(filepath.Dir(path), 0o755))
			if got := dialAs(t, path); got != "" {
				t.Errorf("root hears %q", got)
			}
			third := childAs(self, asThird, "dial", path)
			if out, err := third.CombinedOutput(); err != nil {
				t.Errorf("a third user: %v\n%s", err, out)
			}
			_ = stop.Close()
			var refused []string
			for lines.Scan() && strings.HasPrefix(lines.Text(), "refused") {
				refused = append(refused, lines.Text())
			}
			_, _ = io.Copy(io.Discard, out)
			if err := server.Wait(); err != nil {
				t.Errorf("the server: %v", err)
			}
			if len(refused) != 2 || refused[0] != "refused 0" || refused[1] != fmt.Sprint("refused ", asThird) {
				t.Errorf("%q", refused)
			}
		})
	}
}

// A connection that is closed while something lies in it unread is reset
// (unix(7)); one of which all was read just ends. So the peer can tell.
func TestAnotherUserIsClosedUnheard(t *testing.T) {
	if path := os.Getenv(withSocket); path != "" {
		c, err := net.Dial("unix", path)
		do(t, err)
		_, err = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		do(t, err)
		fmt.Println("written")
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if b, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
			t.Errorf("the server has read it: %q, %v", b, err)
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user: sudo go test ./ipc/server")
	}
	path := filepath.Join(shortDir(t), "s")
	l, err := Listen(path)
	do(t, err)
	do(t, os.Chmod(path, 0o666))
	do(t, os.Chmod(filepath.Dir(path), 0o755))
	other := childAs(readableSelf(t), asOther, "dial", path)
	other.Args[1] = "-test.run=^TestAnotherUserIsClosedUnheard$"
	out, err := other.StdoutPipe()
	do(t, err)
	do(t, other.Start())
	said := bufio.NewScanner(out)
	if !said.Scan() || said.Text() != "written" {
		t.Errorf("the other says %q", said.Text())
	}
	// It waits to be accepted until now, so that what it wrote is there.
	s := New(l, http.NotFoundHandler(), Hooks{})
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	rest, _ := io.ReadAll(out)
	if err := other.Wait(); err != nil {
		t.Errorf("%v\n%s", err, rest)
	}
	do(t, s.Close())
	do(t, <-done)
}

func serveAsChild(t *testing.T) {
	var l net.Listener
	var err error
	if os.Getenv(withDescriptor) != "" {
		l, err = net.FileListener(os.NewFile(3, "socket"))
	}
	do(t, err)
	if l == nil {
		l, err = Listen(os.Getenv(withSocket))
		do(t, err)
	}
	s := New(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("a request was read")
		Reply(w, 200, "", []byte("heard"))
	}), Hooks{Refused: func(p Peer) { fmt.Println("refused", p.UID) }})
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent has seen enough
	_ = s.Close()
	do(t, <-done)
}

func dialAs(t *testing.T, path string) string {
	t.Helper()
	c, err := net.Dial("unix", path)
	do(t, err)
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n") // may fail: it is closed already
	b, _ := io.ReadAll(c)
	return string(b)
}

func childAs(self string, uid uint32, role, path string) *exec.Cmd {
	cmd := exec.Command(self, "-test.run=^TestOnlyTheServersUserIsHeard$")
	cmd.Env = []string{inRole + "=" + role, withSocket + "=" + path}
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if role == "dial" {
		cmd.Stderr = nil // CombinedOutput's
	}
	return cmd
}

// readableSelf is this test binary where other users can run it.
func readableSelf(t *testing.T) string {
	t.Helper()
	self := filepath.Join(shortDir(t), "test")
	b, err := os.ReadFile(os.Args[0])
	do(t, err)
	do(t, os.WriteFile(self, b, 0o755))
	do(t, os.Chmod(filepath.Dir(self), 0o755))
	return self
}

// serveFew runs h with room for a few connections.
func serveFew(t *testing.T, limit int, h http.HandlerFunc) string {
	t.Helper()
	path := filepath.Join(shortDir(t), "s")
	l, err := Listen(path)
	do(t, err)
	s := New(l, h, Hooks{})
	s.listener.(*guard).limit = limit
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		_ = s.Close()
		do(t, <-done)
	})
	return path
}

func connect(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	do(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// closed reports whether the server has closed c, which sends nothing else.
func closed(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

func TestWhoOwesARequestForLongestMakesRoom(t *testing.T) {
	path := serveFew(t, 4, func(w http.ResponseWriter, _ *http.Request) { Reply(w, 200, "", []byte("yes")) })
	var silent []net.Conn
	for i := range 4 {
		c := connect(t, path)
		// Silent from the start, in the headers, in the body, between requests.
		_, err := io.WriteString(c, []string{"", "GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"}[i])
		do(t, err)
		if i == 3 {
			if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
				t.Fatalf("%q, %v", line, err)
			}
		}
		silent = append(silent, c)
		time.Sleep(2 * grace)
	}
	for i := range silent {
		// It stays, and owes the next request for the shortest time.
		c := connect(t, path)
		_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		do(t, err)
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
			t.Fatalf("no room for a caller beside %d silent ones: %q, %v", len(silent)-i, line, err)
		}
		for j, s := range silent[i+1:] {
			if closed(s) {
				t.Errorf("%d was closed before %d", i+1+j, i)
			}
		}
		if !closed(silent[i]) {
			t.Errorf("%d made no room", i)
		}
	}
}

func TestARequestThatIsAnsweredIsNeverClosed(t *testing.T) {
	goOn := make(chan struct{})
	var inside atomic.Int32
	path := serveFew(t, 3, func(w http.ResponseWriter, _ *http.Request) {
		if inside.Add(1)%2 == 0 { // in the middle of its answer
			w.Header().Set("Content-Length", "6")
			_, _ = io.WriteString(w, "yes")
			do(t, http.NewResponseController(w).Flush())
		}
		<-goOn
		_, _ = io.WriteString(w, "yes")
	})
	var all []net.Conn
	for range 6 { // the last three find no room until the others have their answers
		c := connect(t, path)
		_, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		do(t, err)
		all = append(all, c)
	}
	time.Sleep(5 * grace)
	if n := inside.Load(); n != 3 {
		t.Errorf("%d requests at a time, and room for 3", n)
	}
	close(goOn)
	for i, c := range all {
		if b, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(b), "yes") {
			t.Errorf("request %d: %q, %v", i, b, err)
		}
	}
}

// unreadable is more than the kernel holds for a peer that does not read.
var unreadable = make([]byte, 1<<20)

func TestWhoDoesNotReadMakesRoom(t *testing.T) {
	path := serveFew(t, 3, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/long" {
			_, _ = w.Write(unreadable)
			return
		}
		Reply(w, 200, "", []byte("yes"))
	})
	for range 3 {
		c := connect(t, path)
		_, err := io.WriteString(c, "GET /long HTTP/1.0\r\n\r\n")
		do(t, err)
	}
	start := time.Now()
	if got := talk(t, path, "GET / HTTP/1.0\r\n\r\n"); !strings.HasSuffix(got, "yes") || time.Since(start) >= writeTimeout {
		t.Errorf("no room for a caller beside three that do not read: %q after %v", got, time.Since(start))
	}
}

// A stream waits for its peer, whoever else would like its place.
func TestAStreamMakesNoRoom(t *testing.T) {
	ended := make(chan error, 1)
	path := serveFew(t, 1, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			_, err := NewStream(w, r, "text/event-stream").Write(unreadable)
			ended <- err
			return
		}
		Reply(w, 200, "", []byte("yes"))
	})
	stream := connect(t, path)
	_, err := io.WriteString(stream, "GET /stream HTTP/1.0\r\n\r\n")
	do(t, err)
	other := connect(t, path)
	_, err = io.WriteString(other, "GET / HTTP/1.0\r\n\r\n")
	do(t, err)
	time.Sleep(3 * grace)
	if n, err := io.Copy(io.Discard, stream); err != nil || n < int64(len(unreadable)) {
		t.Errorf("%d bytes of the stream, %v", n, err)
	}
	do(t, <-ended)
	if got, err := io.ReadAll(other); err != nil || !strings.HasSuffix(string(got), "yes") {
		t.Errorf("%q, %v", got, err)
	}
}

// Callers never take the descriptors that a refresh needs.
func TestCallersLeaveRoomForTheRest(t *testing.T) {
	var old syscall.Rlimit
	do(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	defer func() { do(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)) }()
	for limit, want := range map[uint64]int{20: 1, 32: 8, 256: 232, 535: 511, 536: 512, 1024: 512} {
		do(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: old.Max}))
		if got := MaxConns(); got != want {
			t.Errorf("of %d descriptors %d are for callers, want %d", limit, got, want)
		}
	}
}

// More callers at once than there is room for: each has an answer.
func TestABurstOfCallersLosesNobody(t *testing.T) {
	path := serveFew(t, 4, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Millisecond)
		Reply(w, 200, "", []byte("yes"))
	})
	var wg sync.WaitGroup
	var lost atomic.Int32
	for range 40 {
		wg.Go(func() {
			for range 10 {
				c, err := net.Dial("unix", path)
				if err != nil {
					lost.Add(1)
					continue
				}
				_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
				if b, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(b), "yes") {
					lost.Add(1)
				}
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	if n := lost.Load(); n != 0 {
		t.Errorf("%d of 400 were not answered", n)
	}
}

// A failing listener fails a few times before each connection.
type failing struct {
	net.Listener
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errs) > 0 {
		err := f.errs[0]
		f.errs = f.errs[1:]
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", err)}
	}
	return f.Listener.Accept()
}

func TestTheServerOutlivesAcceptsThatFail(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	l, err := Listen(path)
	do(t, err)
	errs := []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EPERM}
	var told atomic.Int32
	s := New(&failing{l, errs}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		Reply(w, 200, "", []byte("yes"))
	}), Hooks{Trouble: func(error) { told.Add(1) }})
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	if got := talk(t, path, "GET / HTTP/1.0\r\n\r\n"); !strings.HasSuffix(got, "yes") || int(told.Load()) != len(errs) {
		t.Errorf("%q after %d troubles", got, told.Load())
	}
	do(t, s.Close())
	do(t, <-done)
}

func TestAListenerThatIsGoneEndsTheServer(t *testing.T) {
	l, err := Listen(filepath.Join(shortDir(t), "s"))
	do(t, err)
	if err := New(&failing{l, []error{syscall.EBADF}}, nil, Hooks{}).Serve(); !errors.Is(err, syscall.EBADF) {
		t.Errorf("%v", err)
	}
	_ = l.Close()
}

// Descriptors that come with a request are closed by the kernel.
func TestPassedDescriptorsAreNotReceived(t *testing.T) {
	path := serve(t, func(w http.ResponseWriter, _ *http.Request) { Reply(w, 200, "", []byte("yes")) }, nil)
	null, err := os.Open(os.DevNull)
	do(t, err)
	defer func() { _ = null.Close() }()
	rights := make([]int, 200)
	for i := range rights {
		rights[i] = int(null.Fd())
	}
	before := openFiles(t)
	for range 50 {
		c := connect(t, path).(*net.UnixConn)
		_, _, err := c.WriteMsgUnix([]byte("GET / HTTP/1.0\r\n\r\n"), syscall.UnixRights(rights...), nil)
		do(t, err)
		if b, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(b), "yes") {
			t.Errorf("%q, %v", b, err)
		}
		_ = c.Close()
	}
	settle(t, "descriptors after 10,000 were passed", before, openFiles)
}

func TestHalfClosedPeers(t *testing.T) {
	path := serve(t, func(w http.ResponseWriter, _ *http.Request) { Reply(w, 200, "", []byte("yes")) }, nil)
	before, goroutines := openFiles(t), runtime.NumGoroutine()
	for i := range 200 {
		c := connect(t, path).(*net.UnixConn)
		whole := "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nabcde"
		cut := i % (len(whole) + 1)
		_, err := io.WriteString(c, whole[:cut])
		do(t, err)
		do(t, c.CloseWrite())
		b, err := io.ReadAll(c)
		if heard := strings.HasSuffix(string(b), "yes"); err != nil || heard != (cut == len(whole)) {
			t.Errorf("after %d bytes: %q, %v", cut, b, err)
		}
		_ = c.Close()
	}
	settle(t, "descriptors", before, openFiles)
	settle(t, "goroutines", goroutines, func(*testing.T) int { return runtime.NumGoroutine() })
}

// A body that is announced as too long is refused at once; net/http would wait
// for it for ever.
func TestABodyThatIsTooLongIsNotWaitedFor(t *testing.T) {
	path := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("heard") }, nil)
	begun := time.Now()
	got := talk(t, path, fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", ipc.MaxBody+1))
	if !strings.Contains(got, "400 Bad Request") || time.Since(begun) > 3*time.Second {
		t.Errorf("after %v: %q", time.Since(begun), got)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	do(t, err)
	return len(list)
}

// settle waits until count is at most what it was.
func settle(t *testing.T, what string, before int, count func(*testing.T) int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		n := count(t)
		if n <= before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d, were %d", what, n, before)
		}
	}
}

// A request that lies in the socket, because the server has not come to read
// it, is no reason to close the connection.
func TestSilenceIsThePeers(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	l, err := Listen(path)
	do(t, err)
	g := newGuard(l, Hooks{})
	defer func() { _ = g.Close() }()
	client := connect(t, path)
	accepted, err := g.Accept()
	do(t, err)
	c := accepted.(*conn)
	if c.silent() {
		t.Error("silent before anybody has listened")
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(make([]byte, 2)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if !c.silent() {
		t.Error("not silent, but nothing was sent")
	}
	_, err = io.WriteString(client, "GE")
	do(t, err)
	if c.silent() {
		t.Error("silent, but there is something to read")
	}
	_ = c.SetReadDeadline(time.Time{})
	if _, err := c.Read(make([]byte, 2)); err != nil || c.silent() {
		t.Errorf("silent while what was read is looked at (%v)", err)
	}
}
