package server

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The loop that accepts connections turns when it is asked to, with nobody there and
// with all places taken by callers that wait for an answer. It stands still if it
// hangs. Nobody is turned away for it.
func TestTurns(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	l, err := Listen(path)
	do(t, err)
	do(t, setDeadline(l, time.Time{})) // else no loop would be seen to stand still
	answer := make(chan struct{})
	s := New(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-answer }), Hooks{})
	s.guard.limit = 2
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		_ = s.Close()
		do(t, <-done)
	})
	turns := func(what string) {
		t.Helper()
		before := s.Turns()
		for end := time.Now().Add(20 * time.Second); s.guard.turns.Load() == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: it stands still", what)
			}
		}
	}
	for range 3 {
		turns("nobody is there")
	}
	for range 4 {
		c, err := net.Dial("unix", path)
		do(t, err)
		defer func() { _ = c.Close() }()
		_, err = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
		do(t, err)
		do(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
		defer func() {
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Error("a caller was turned away: ", err)
			}
		}()
		turns("callers take the places")
	}
	for range 3 {
		turns("all places are taken")
	}
	close(answer)
}

// A listener that cannot be asked counts as turning: the watchdog must not end what
// it cannot see.
func TestTurnsWithoutDeadlines(t *testing.T) {
	g := newGuard(make(pipes), Hooks{})
	s := &Server{guard: g}
	if a, b := s.Turns(), s.Turns(); a == b {
		t.Error("it stands still")
	}
	if err := setDeadline(make(pipes), time.Time{}); err == nil || os.IsTimeout(err) {
		t.Error(err)
	}
}
