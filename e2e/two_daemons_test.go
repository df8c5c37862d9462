package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

// A rival is one of two daemons that want the same state directory.
type rival struct {
	socket string
	cmd    *exec.Cmd
	stderr bytes.Buffer // to be read when it has ended
	notify *net.UnixConn
	ended  chan struct{} // closed when it has
}

// startRival starts a daemon with a socket of its own.
func (w *world) startRival(name string) *rival {
	w.t.Helper()
	r := &rival{socket: w.dir + "/" + name + ".sock", ended: make(chan struct{})}
	path := w.dir + "/" + name + ".notify"
	_ = os.Remove(path)
	var err error
	if r.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}); err != nil {
		w.t.Fatal(err)
	}
	r.cmd = w.command("bloq-agent", "serve", "--socket", r.socket, "--log-format", "json")
	r.cmd.Env = append(r.cmd.Env, "NOTIFY_SOCKET="+path)
	r.cmd.Stderr = &r.stderr
	if err := r.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	guard := time.AfterFunc(30*time.Second, func() { _ = r.cmd.Process.Kill() })
	go func() { // ends with the process
		_ = r.cmd.Wait() // what it says is in ProcessState too
		guard.Stop()
		_ = r.notify.Close() // ends isReady
		close(r.ended)
	}()
	w.t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.ended
	})
	return r
}

// isReady waits until r is ready, or has ended before it was.
func (r *rival) isReady() bool {
	buf := make([]byte, 4096)
	for {
		n, err := r.notify.Read(buf)
		if err != nil {
			return false
		}
		if strings.HasPrefix(string(buf[:n]), "READY=1") {
			go func() { // hears the rest, as systemd does; ends with the socket
				for err == nil {
					_, err = r.notify.Read(buf)
				}
			}()
			return true
		}
	}
}

// ask asks r for a token.
func (r *rival) ask() (status int, body string, err error) {
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
		},
	}}
	a, err := c.Get("http://bloq-agent" + ipc.RouteToken)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = a.Body.Close() }()
	b, err := io.ReadAll(a.Body)
	return a.StatusCode, string(b), err
}

// Two daemons on one state directory, with a socket each: one serves, the other
// says why it does not, and the endpoint, which revokes a login when a refresh
// token comes twice, never sees one twice.
func TestTwoDaemonsOnOneStateDirectory(t *testing.T) {
	const rounds = 500
	w := newWorld(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	w.start()
	w.login("--store", "file")
	w.stop()
	before := w.api.Load().Stats().Grants["refreshToken"]
	start, wins := time.Now(), map[string]int{}
	for i := range rounds {
		names := []string{"a", "b"}
		rand.Shuffle(2, func(i, j int) { names[i], names[j] = names[j], names[i] })
		winner, loser := w.startRival(names[0]), w.startRival(names[1])
		first := make(chan bool)
		go func() { first <- winner.isReady() }() // ends when it is, or has ended
		secondReady := loser.isReady()
		firstReady := <-first
		if firstReady == secondReady {
			t.Fatalf("round %d: ready: %v and %v\n%s%s", i, firstReady, secondReady, winner.stderr.String(), loser.stderr.String())
		}
		if secondReady {
			winner, loser = loser, winner
			wins["started second"]++
		}
		<-loser.ended
		r := result{loser.cmd.ProcessState.ExitCode(), "", loser.stderr.String()}
		w.wants(r, ipc.ExitInternal, "another bloq-agent uses this state directory", fmt.Sprintf("kill %d", winner.cmd.Process.Pid))
		if status, body, err := winner.ask(); err != nil || status != http.StatusOK || !strings.Contains(body, `"token":"eyJ`) {
			t.Fatalf("round %d: the one that serves: %d %s %v", i, status, body, err)
		}
		if status, _, err := loser.ask(); err == nil {
			t.Errorf("round %d: the one that has ended answers %d", i, status)
		}
		if err := winner.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		<-winner.ended
		if code := winner.cmd.ProcessState.ExitCode(); code != 0 {
			t.Fatalf("round %d: exit %d\n%s", i, code, winner.stderr.String())
		}
	}
	took := time.Since(start)
	s := w.api.Load().Stats()
	if got := s.Grants["refreshToken"] - before; got != rounds || s.Reuse != 0 {
		t.Errorf("%d exchanges in %d rounds, %d refresh tokens used twice", got, rounds, s.Reuse)
	}
	w.start()
	w.must("", "bloq-agent", "refresh")
	w.must("", "bloq-token")
	t.Logf("%d rounds in %v: the one started second won %d; %d exchanges, %d refresh tokens used twice",
		rounds, took.Round(time.Millisecond), wins["started second"], s.Grants["refreshToken"]-before, w.api.Load().Stats().Reuse)
}
