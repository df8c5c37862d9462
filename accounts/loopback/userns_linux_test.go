package loopback

import (
	"context"
	"fmt"
	"net"
	"testing"

	"bloq-agent/userns/usernstest"
)

// The listener is our own, and could be anybody's.
func TestAListenerThatCouldBeAnybodysGetsNothing(t *testing.T) {
	if !usernstest.Inside(t) {
		return
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	do(t, err)
	var d net.Dialer
	_, err = Dialer(d.DialContext)(context.Background(), "tcp4", l.Addr().String())
	want := fmt.Sprintf("port %d on 127.0.0.1: this user namespace does not tell which user listens there; nothing was sent", l.Addr().(*net.TCPAddr).Port)
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
