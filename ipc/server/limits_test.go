package server

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener in virtual time: a real socket would freeze the bubble.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// dawdle gives f a connection to a server of h in virtual time.
func dawdle(t *testing.T, h http.HandlerFunc, f func(t *testing.T, c net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := make(pipes)
		s := New(l, h, Hooks{})
		s.listener = l // a pipe has no peer to look at
		served := make(chan error, 1)
		go func() { served <- s.Serve() }()
		ours, theirs := net.Pipe()
		l <- theirs
		f(t, ours)
		_ = ours.Close()
		close(l)
		<-served
		do(t, s.Close())
	})
}

func lasted(t *testing.T, what string, start time.Time, want time.Duration) {
	t.Helper()
	// net/http lingers half a second before it closes.
	if d := time.Since(start); d < want || d > want+time.Second {
		t.Errorf("%s: after %v, want %v", what, d, want)
	}
}

func never(t *testing.T) http.HandlerFunc {
	return func(http.ResponseWriter, *http.Request) { t.Error("served") }
}

// The figures are promises (PROTOCOL.md section 5): they stand here as numbers.
func TestAHeaderThatDoesNotComeEndsAfter5Seconds(t *testing.T) {
	for _, begun := range []string{"", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\n"} {
		dawdle(t, never(t), func(t *testing.T, c net.Conn) {
			start := time.Now()
			_, err := io.WriteString(c, begun)
			do(t, err)
			_, _ = io.Copy(io.Discard, c)
			lasted(t, begun, start, 5*time.Second)
		})
	}
}

func TestABodyThatDoesNotComeEndsAfter5Seconds(t *testing.T) {
	dawdle(t, never(t), func(t *testing.T, c net.Conn) {
		start := time.Now()
		_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
		do(t, err)
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.Contains(line, " 400 ") {
			t.Errorf("%q, %v", line, err)
		}
		lasted(t, "the body", start, 5*time.Second)
	})
}

func TestAnAnswerThatIsNotReadEndsAfter10Seconds(t *testing.T) {
	var held atomic.Int64
	h := func(w http.ResponseWriter, _ *http.Request) {
		start := time.Now()
		Reply(w, 200, "text/plain", make([]byte, 1<<20))
		held.Store(int64(time.Since(start)))
	}
	dawdle(t, h, func(t *testing.T, c net.Conn) {
		_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		do(t, err)
		time.Sleep(time.Minute)
		if d := time.Duration(held.Load()); d != 10*time.Second {
			t.Errorf("the handler was held for %v", d)
		}
	})
}

func TestAnIdleConnectionEndsAfter30Seconds(t *testing.T) {
	h := func(w http.ResponseWriter, _ *http.Request) { Reply(w, 204, "", nil) }
	dawdle(t, h, func(t *testing.T, c net.Conn) {
		_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		do(t, err)
		start := time.Now()
		_, _ = io.Copy(io.Discard, c)
		lasted(t, "the connection", start, 30*time.Second)
	})
}

// A stream ends if its peer does not read for 10 s while something waits, and for
// no other reason.
func TestAStreamThatIsNotReadEndsAfter10Seconds(t *testing.T) {
	var ended atomic.Pointer[time.Time]
	h := func(w http.ResponseWriter, r *http.Request) {
		out := NewStream(w, r, "text/event-stream")
		time.Sleep(time.Hour) // nothing waits
		for {
			if _, err := io.WriteString(out, "x"); err != nil {
				now := time.Now()
				ended.Store(&now)
				return
			}
		}
	}
	dawdle(t, h, func(t *testing.T, c net.Conn) {
		_, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		do(t, err)
		b := make([]byte, 4096)
		for range 30 {
			if _, err := c.Read(b); err != nil {
				t.Fatal(err)
			}
			time.Sleep(9900 * time.Millisecond)
		}
		start := time.Now()
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if end := ended.Load(); end == nil || end.Sub(start) != 10*time.Second {
			t.Errorf("began to wait at %v, ended at %v", start, end)
		}
	})
}

// A large buffer would have many answers made for a peer that reads none, and a
// peer that reads slowly would look like one that does not read.
func TestTheKernelHoldsLittleOfAnAnswer(t *testing.T) {
	held := make(chan int, 1)
	path := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_ = connOf(r.Context()).raw.Control(func(fd uintptr) {
			n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
			do(t, err)
			held <- n
		})
	}, nil)
	talk(t, path, "GET / HTTP/1.0\r\n\r\n")
	if n := <-held; n > 16<<10 { // the kernel doubles what it is told
		t.Errorf("%d bytes", n)
	}
}
