package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/ipc"
)

func init() {
	attacks["hold"] = hold
}

// Requests whose answers nobody reads.
const (
	unreadStream  = "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n"
	unreadAnswers = "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
)

// hold sends a request by each of 64 connections, times times, and reads no more
// than the first status. What is refused or closed comes again. At the end of its
// input it prints how many were not refused, and keeps them.
func hold(args []string) {
	socket, request := args[0], args[1]
	var times int
	_, _ = fmt.Sscan(args[2], &times)
	var held atomic.Int64
	var forever chan bool
	for range 64 {
		go func() {
			for ; ; time.Sleep(200 * time.Millisecond) {
				c, err := net.Dial("unix", socket)
				if err != nil {
					continue // the backlog is full
				}
				status := make([]byte, len("HTTP/1.1 200"))
				_, err = io.WriteString(c, strings.Repeat(request, times))
				if err == nil {
					_, err = io.ReadFull(c, status)
				}
				if err != nil || !strings.HasSuffix(string(status), "200") {
					_ = c.Close()
					continue
				}
				held.Add(1)
				<-forever
				_ = c.Close() // a connection that nothing refers to would be closed
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	fmt.Println(held.Load())
	<-forever
}

// holders are eight processes that hold 512 connections. The function that it
// returns ends them and returns how many each could keep.
func (w *world) holders(request string, times int) (end func() []int) {
	w.t.Helper()
	type holder struct {
		cmd   *exec.Cmd
		stdin io.Closer
		out   io.Reader
	}
	var all []holder
	for range 8 {
		cmd := w.attacker(nil, "hold", w.socket(), request, fmt.Sprint(times))
		stdin, err := cmd.StdinPipe()
		must(w.t, err)
		out, err := cmd.StdoutPipe()
		must(w.t, err)
		must(w.t, cmd.Start())
		all = append(all, holder{cmd, stdin, out})
	}
	return func() []int {
		counts := make([]int, len(all))
		for i, h := range all {
			_ = h.stdin.Close()
			_, err := fmt.Fscan(h.out, &counts[i])
			must(w.t, err)
		}
		for _, h := range all { // only now: another would take its place
			_ = h.cmd.Process.Kill()
			_ = h.cmd.Wait()
		}
		return counts
	}
}

// streams has eight processes hold 512 event streams that they do not read.
func (w *world) streams(d time.Duration) {
	w.t.Helper()
	end := w.holders(unreadStream, 1)
	time.Sleep(d)
	counts, sum := end(), 0
	for _, n := range counts {
		sum += n
		if n > 8 {
			w.t.Errorf("a process had %d streams", n)
		}
	}
	w.t.Logf("streams that eight processes got: %v", counts)
	if sum != 32 {
		w.t.Errorf("%d streams, want 32", sum)
	}
}

// unread has eight processes hold 512 connections with answers that they do not
// read.
func (w *world) unread(d time.Duration) {
	w.t.Helper()
	end := w.holders(unreadAnswers, 2000)
	time.Sleep(d)
	w.t.Logf("connections that eight processes kept: %v", end())
}

// everything is all attacks at the same time.
func (w *world) everything(requests int) {
	var all sync.WaitGroup
	for _, attack := range []func(){
		func() { w.fuzz(requests) },
		func() { w.lorises(512, 6*time.Second) },
		func() { w.passDescriptors(10_000) },
		func() { w.halfClose(2_000) },
		func() { w.streams(6 * time.Second) },
		func() { w.unread(6 * time.Second) },
	} {
		all.Go(attack)
	}
	all.Wait()
}

// One watcher more than there may be is told so.
func TestAWatcherTooMany(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.through("ulimit -n 32") // 8 connections, 4 streams
	w.start("--store", "memory", "--log-level", "info")
	for range 4 {
		w.events()
	}
	r := w.run("", "bloq-agent", "status", "--watch")
	if r.code != ipc.ExitUnavailable || !strings.Contains(r.stderr, fmt.Sprintf("too many watchers: 4 event streams are open, the most that the daemon allows; process %d has 4 of them", os.Getpid())) {
		t.Errorf("%+v", r)
	}
	w.must("", "bloq-agent", "status")
}

// dial waits while the backlog is full.
func (w *world) dial() net.Conn {
	w.t.Helper()
	for {
		c, err := net.Dial("unix", w.socket())
		if err == nil {
			return c
		}
		if !errors.Is(err, syscall.EAGAIN) {
			w.t.Errorf("nobody listens any more: %v", err)
			panic(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
