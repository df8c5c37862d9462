package server

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"bloq-agent/userns"
	"bloq-agent/userns/usernstest"
)

// The caller is ourselves, and could be anybody; so could who owns the directory.
func TestACallerThatCouldBeAnybodyIsRefused(t *testing.T) {
	if !usernstest.Inside(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "s")
	var dir *DirError
	if _, err := Listen(path); !errors.As(err, &dir) || dir.Dir != filepath.Dir(path) || dir.Reason != "belongs to another user" {
		t.Errorf("a directory: %v", err)
	}
	if err := checkParent(filepath.Dir(path)); !errors.As(err, &dir) || dir.Reason != "belongs to another user" {
		t.Errorf("its parent: %v", err)
	}
	l, err := net.Listen("unix", path)
	do(t, err)
	refused := make(chan Peer, 1)
	s := New(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a request was read")
	}), Hooks{Refused: func(p Peer) { refused <- p }})
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	if got := dialAs(t, path); got != "" {
		t.Errorf("heard %q", got)
	}
	do(t, s.Close())
	do(t, <-done)
	close(refused)
	if p := <-refused; p.UID != userns.Overflow || p.PID != os.Getpid() {
		t.Errorf("refused %+v", p)
	}
}
