package client

import (
	"bufio"
	"errors"
	"io"
	"net"
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

// serve answers the connections to a new socket with the given functions, one
// after the other; the last one serves all that follow.
func serve(t *testing.T, answers ...func(net.Conn)) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bloq") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { // ends when the listener is closed
		for i := 0; ; i++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			answers[min(i, len(answers)-1)](c)
		}
	}()
	return path
}

func say(s string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write([]byte(s))
		_ = c.Close()
	}
}

// hangUp breaks the connection before a byte of an answer.
func hangUp(c net.Conn) { _ = c.Close() }

const whole = "HTTP/1.0 200 OK\r\ncontent-length:  5 \r\nBloq-Exit: 3\r\n\r\nhello"

func TestAWholeAnswer(t *testing.T) {
	a, err := Do(serve(t, say(whole)), Request{Target: "/"})
	if err != nil || a.Status != 200 || string(a.Body) != "hello" || a.Number("bloq-exit") != 3 || a.Header("absent") != "" || a.Number("absent") != -1 {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestBytesAfterTheAnswerAreIgnored(t *testing.T) {
	a, err := Do(serve(t, say(whole+"more")), Request{Target: "/"})
	if err != nil || string(a.Body) != "hello" {
		t.Errorf("%q, %v", a.Body, err)
	}
}

func TestACutAnswerIsRefused(t *testing.T) {
	for i := 1; i < len(whole); i++ {
		if a, err := Do(serve(t, say(whole[:i])), Request{Target: "/", Timeout: time.Second}); err != ErrCutAnswer {
			t.Fatalf("the first %d bytes: %q, %v", i, a.Body, err)
		}
	}
}

func TestAnAnswerThatIsNotOursIsRefused(t *testing.T) {
	for _, s := range []string{
		"HTTP/1.0 200 OK\r\n\r\nno length, could be cut anywhere",
		"HTTP/1.0 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.0 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
		"HTTP/1.0 abc OK\r\nContent-Length: 0\r\n\r\n",
		"SSH-2.0-OpenSSH\r\n\r\n",
		strings.Repeat("x", ipc.MaxAnswer+1<<20),
	} {
		if a, err := Do(serve(t, say(s)), Request{Target: "/", Timeout: 5 * time.Second}); err != ErrBadAnswer {
			t.Errorf("%.40q: %q, %v", s, a.Body, err)
		}
	}
}

// A thousand profiles are described in 1 MB.
func TestALongAnswerIsRead(t *testing.T) {
	const length = 3 << 20
	long := "HTTP/1.0 200 OK\r\nContent-Length: " + strconv.Itoa(length) + "\r\n\r\n" + strings.Repeat("x", length)
	if a, err := Do(serve(t, say(long)), Request{Target: "/", Timeout: 20 * time.Second}); err != nil || len(a.Body) != length {
		t.Errorf("%d bytes, %v", len(a.Body), err)
	}
}

func TestABrokenConnectionIsRepeated(t *testing.T) {
	path := serve(t, hangUp, hangUp, hangUp, say(whole))
	if a, err := Do(path, Request{Target: "/"}); err != nil || string(a.Body) != "hello" {
		t.Errorf("%q, %v", a.Body, err)
	}
	if _, err := Do(serve(t, hangUp, say(whole)), Request{Target: "/", Once: true}); err != ErrNoAnswer {
		t.Errorf("what must be sent once: %v", err)
	}
	if _, err := Do(serve(t, hangUp), Request{Target: "/", Timeout: 100 * time.Millisecond}); err != ErrTimeout {
		t.Errorf("broken until the deadline: %v", err)
	}
}

func TestAnEarlyRefusalIsRead(t *testing.T) {
	refuse := func(c net.Conn) { // with the request unread: the client's next read is a reset
		_, _ = c.Write([]byte("HTTP/1.0 503 Busy\r\nContent-Length: 2\r\n\r\nno"))
		_ = c.Close()
	}
	body := make([]byte, 4<<20) // more than the socket's buffer holds
	a, err := Do(serve(t, refuse), Request{Method: "POST", Target: "/", Body: body})
	if err != nil || a.Status != 503 || string(a.Body) != "no" {
		t.Errorf("%d %q, %v", a.Status, a.Body, err)
	}
}

func TestASilentServerEndsAtTheDeadline(t *testing.T) {
	silent := make(chan net.Conn, 1)
	path := serve(t, func(c net.Conn) { silent <- c })
	start := time.Now()
	if _, err := Do(path, Request{Target: "/", Timeout: 50 * time.Millisecond}); err != ErrTimeout {
		t.Errorf("%v", err)
	}
	if time.Since(start) < 50*time.Millisecond {
		t.Error("gave up early")
	}
	_ = (<-silent).Close()
}

func TestNobodyListens(t *testing.T) {
	var c *ConnectError
	_, err := Do("/nonexistent/agent.sock", Request{Target: "/"})
	if !errors.As(err, &c) || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("%v", err)
	}
	_, err = Do("/"+strings.Repeat("x", 107), Request{Target: "/"})
	if !errors.As(err, &c) {
		t.Errorf("%v", err)
	}
}

func TestWhomTheClientTrusts(t *testing.T) {
	for _, tt := range []struct {
		server, own int
		want        bool
	}{{1000, 1000, true}, {0, 1000, true}, {1001, 1000, false}, {1000, 0, false}, {0, 0, true}} {
		if trusted(tt.server, tt.own) != tt.want {
			t.Errorf("server %d, client %d: trusted is %v", tt.server, tt.own, !tt.want)
		}
	}
}

// listenAs is the child's part of TestAForeignServerGetsNothing.
const listenAs = "BLOQ_TEST_LISTEN"

func TestAForeignServerGetsNothing(t *testing.T) {
	if path := os.Getenv(listenAs); path != "" {
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = os.Stdout.WriteString("listening\n")
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(c)
		_, _ = os.Stdout.WriteString(strconv.Itoa(len(b)) + " bytes came\n")
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user: sudo go test ./ipc/client")
	}
	dir, err := os.MkdirTemp("", "bloq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	// The test binary lies where nobody else may look.
	self, path := filepath.Join(dir, "test"), filepath.Join(dir, "s")
	b, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(self, b, 0o755)
	}
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestAForeignServerGetsNothing$")
	cmd.Env = []string{listenAs + "=" + path}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	said := bufio.NewReader(out)
	if line, err := said.ReadString('\n'); err != nil || line != "listening\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := Do(path, Request{Target: "/", Timeout: 10 * time.Second}); err != ErrForeignServer {
		t.Errorf("%v", err)
	}
	if line, err := said.ReadString('\n'); line != "0 bytes came\n" {
		t.Errorf("%q, %v", line, err)
	}
}

func FuzzParseNeverTakesAPrefixForAnAnswer(f *testing.F) {
	f.Add([]byte(whole), 10)
	f.Add([]byte("HTTP/1.1 204 No Content\r\n\r\n"), 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		a, err := parse(b)
		if err != nil {
			return
		}
		end := headerEnd(b) + 4 + len(a.Body)
		if cut < 0 || cut >= end {
			return
		}
		if part, err := parse(b[:cut]); err == nil {
			t.Fatalf("%d bytes of an answer of %d: %q", cut, end, part.Body)
		}
	})
}
