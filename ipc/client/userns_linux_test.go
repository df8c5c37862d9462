package client

import (
	"net"
	"testing"
	"time"

	"bloq-agent/userns/usernstest"
)

// The server is our own, and could be anybody's.
func TestAServerThatCouldBeAnybodysGetsNothing(t *testing.T) {
	if !usernstest.Inside(t) {
		return
	}
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan int)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		n, _ := c.Read(make([]byte, 1))
		_ = c.Close()
		heard <- n
	}()
	if _, err := Do(path, Request{Target: "/", Timeout: 2 * time.Second}); err != ErrForeignServer {
		t.Errorf("%v", err)
	}
	if n := <-heard; n != 0 {
		t.Errorf("it heard %d bytes", n)
	}
}
