package server

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bloq-agent/ipc"
)

// shortDir is a directory whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bloq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// serve runs h on a new socket.
func serve(t *testing.T, h http.HandlerFunc, refused func(Peer)) string {
	t.Helper()
	path := filepath.Join(shortDir(t), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := New(l, h, Hooks{Refused: refused})
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

// talk sends raw bytes and reads the answer to its end.
func talk(t *testing.T, path, request string) string {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil && !strings.Contains(err.Error(), "broken pipe") {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(c) // a reset after the whole answer is an answer
	return string(b)
}

// net/http leaves Content-Length out for larger bodies to an HTTP/1.0 client;
// a cut token would look whole.
func TestContentLengthAlways(t *testing.T) {
	for _, size := range []int{0, 1, 1000, 4000, 200_000} {
		path := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			Reply(w, 200, "text/plain", []byte(strings.Repeat("x", size)))
		}, nil)
		for _, version := range []string{"1.0", "1.1"} {
			got := talk(t, path, "GET / HTTP/"+version+"\r\nHost: x\r\nConnection: close\r\n\r\n")
			if !strings.Contains(got, "Content-Length: "+strconv.Itoa(size)+"\r\n") || !strings.HasSuffix(got, "\r\n\r\n"+strings.Repeat("x", size)) {
				t.Errorf("HTTP/%s, %d bytes: %.300q", version, size, got)
			}
		}
	}
	path := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		Problem(w, ipc.Problem{Code: ipc.CodeLocked, Detail: strings.Repeat("x", 5000)})
	}, nil)
	got := talk(t, path, "GET / HTTP/1.0\r\n\r\n")
	for _, want := range []string{"403 Forbidden", "Content-Length: 5", "application/problem+json", "Bloq-Exit: 3", `"code":"locked"`, "no-store"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %.400q", want, got)
		}
	}
}

func TestLimits(t *testing.T) {
	path := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		Reply(w, 200, "text/plain", []byte(strconv.Itoa(len(b))))
	}, nil)
	post := func(n int) string {
		return "POST / HTTP/1.0\r\nContent-Length: " + strconv.Itoa(n) + "\r\n\r\n" + strings.Repeat("x", n)
	}
	chunked := func(n int) string {
		return "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + strconv.FormatInt(int64(n), 16) + "\r\n" + strings.Repeat("x", n) + "\r\n0\r\n\r\n"
	}
	for request, want := range map[string]string{
		post(0): "200 OK", post(ipc.MaxBody): "200 OK", post(ipc.MaxBody + 1): "400 Bad Request",
		chunked(ipc.MaxBody): "200 OK", chunked(ipc.MaxBody + 1): "400 Bad Request",
		"GET / HTTP/1.0\r\nX: " + strings.Repeat("x", ipc.MaxHeader-1000) + "\r\n\r\n": "200 OK",
		"GET / HTTP/1.0\r\nX: " + strings.Repeat("x", ipc.MaxHeader) + "\r\n\r\n":      "431 ",
		"GET / HTTP/1.0\r\nBloq-Wait: soon\r\n\r\n":                                    "400 Bad Request",
		"GET / HTTP/1.0\r\nBloq-Wait: -5\r\n\r\n":                                      "400 Bad Request",
		"nonsense\r\n\r\n": "400 Bad Request",
	} {
		if got := talk(t, path, request); !strings.Contains(got, " "+want) {
			t.Errorf("%.60q (%d bytes): %.200q, want %s", request, len(request), got, want)
		}
	}
}

func TestTheContextEndsBeforeTheCallerStopsWaiting(t *testing.T) {
	path := serve(t, func(w http.ResponseWriter, r *http.Request) {
		deadline, _ := r.Context().Deadline()
		Reply(w, 200, "text/plain", []byte(time.Until(deadline).Round(10*time.Millisecond).String()))
	}, nil)
	for wait, most := range map[string]time.Duration{"500": 450 * time.Millisecond, "60000": 59900 * time.Millisecond, "99999999": time.Hour, "99999999999": time.Hour, "99999999999999999999": time.Hour, "": 10 * time.Second} {
		header := ""
		if wait != "" {
			header = "Bloq-Wait: " + wait + "\r\n"
		}
		got := talk(t, path, "GET / HTTP/1.0\r\n"+header+"\r\n")
		d, err := time.ParseDuration(got[strings.LastIndex(got, "\n")+1:])
		if err != nil || d > most || d < most*9/10-time.Second {
			t.Errorf("Bloq-Wait %q leaves %v (%v)", wait, d, err)
		}
	}
}

func TestGoneIsAboutThePeerAndNotItsWait(t *testing.T) {
	gone := make(chan struct{})
	path := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done() // the wait
		select {
		case <-Gone(r):
			t.Error("gone while it waits")
		default:
		}
		<-Gone(r)
		close(gone)
	}, nil)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nBloq-Wait: 20\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, func() { _ = c.Close() })
	<-gone
}

// asNobody is the child's part of TestAnotherUserIsRefused.
const asNobody = "BLOQ_TEST_DIAL"

// Another user is refused before a byte of the request is read, even when the
// modes of socket and directory were opened by hand.
func TestAnotherUserIsRefused(t *testing.T) {
	if path := os.Getenv(asNobody); path != "" {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n") // may fail: it is closed already
		if b, err := io.ReadAll(c); len(b) > 0 {
			t.Errorf("answered: %q, %v", b, err)
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user: sudo go test ./ipc/server")
	}
	served := false
	refused := make(chan Peer, 10)
	path := serve(t, func(http.ResponseWriter, *http.Request) { served = true }, func(p Peer) { refused <- p })
	do(t, os.Chmod(path, 0o666))
	do(t, os.Chmod(filepath.Dir(path), 0o755))
	// The test binary lies where nobody else may look.
	self := filepath.Join(shortDir(t), "test")
	b, err := os.ReadFile(os.Args[0])
	do(t, err)
	do(t, os.WriteFile(self, b, 0o755))
	do(t, os.Chmod(filepath.Dir(self), 0o755))
	cmd := exec.Command(self, "-test.run=^TestAnotherUserIsRefused$")
	cmd.Env = []string{asNobody + "=" + path}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if p := <-refused; p.UID != 65534 || p.PID != cmd.Process.Pid {
		t.Errorf("refused %+v", p)
	}
	if served {
		t.Error("another user was served")
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPeerOfIsTheCaller(t *testing.T) {
	before := time.Now()
	path := serve(t, func(w http.ResponseWriter, r *http.Request) {
		peer := PeerOf(r.Context())
		if peer.Since.Before(before) || peer.Since.After(time.Now()) {
			t.Errorf("it connected at %v", peer.Since)
		}
		Reply(w, 200, "", []byte(strconv.Itoa(peer.PID)))
	}, nil)
	if got := talk(t, path, "GET / HTTP/1.0\r\n\r\n"); !strings.HasSuffix(got, "\n"+strconv.Itoa(os.Getpid())) {
		t.Errorf("%q", got)
	}
	if p := PeerOf(context.Background()); p != (Peer{}) {
		t.Errorf("%+v", p)
	}
}

func TestShutdownLetsARequestFinish(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	l, err := Listen(path)
	do(t, err)
	begun, goOn := make(chan struct{}), make(chan struct{})
	s := New(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-goOn
		Reply(w, 200, "", []byte("done"))
	}), Hooks{})
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	c, err := net.Dial("unix", path)
	do(t, err)
	_, err = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	do(t, err)
	<-begun
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	do(t, <-served) // it does not listen any more
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there")
	}
	close(goOn)
	b, err := io.ReadAll(bufio.NewReader(c))
	if err != nil || !strings.HasSuffix(string(b), "done") {
		t.Errorf("%q, %v", b, err)
	}
	do(t, <-down)
}
