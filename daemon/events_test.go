package daemon

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
)

func newHub() *hub {
	h := &hub{}
	h.init()
	return h
}

// The figures are promises (PROTOCOL.md section 5), so they stand here as numbers.
func TestHowManyMayWatch(t *testing.T) {
	h := newHub()
	refuse := func(pid int, want string) {
		t.Helper()
		w, problem := h.subscribe(pid)
		if w != nil || problem == nil || problem.Code != ipc.CodeUnavailable || !strings.HasPrefix(problem.Detail, "too many watchers: ") || !strings.Contains(problem.Detail, want) {
			t.Errorf("process %d is not refused: %+v", pid, problem)
		}
	}
	var last *watcher
	for pid := 1; pid <= 4; pid++ {
		for range 8 {
			w, problem := h.subscribe(pid)
			if problem != nil {
				t.Fatal(problem)
			}
			last = w
		}
		refuse(pid, fmt.Sprintf("process %d has 8", pid))
	}
	refuse(5, "32 event streams are open")
	h.unsubscribe(last)
	if _, problem := h.subscribe(5); problem != nil {
		t.Errorf("no room, but one has gone: %+v", problem)
	}
	refuse(4, "32 event streams are open")
}

// Streams leave room for requests, however few connections there may be.
func TestWatchersLeaveRoomForRequests(t *testing.T) {
	var old syscall.Rlimit
	do(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	defer func() { do(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)) }()
	for limit, want := range map[uint64]int{20: 0, 32: 4, 1024: 32} {
		do(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: old.Max}))
		if got := newHub().limit; got != want || server.MaxConns() <= got {
			t.Errorf("with %d descriptors %d streams, want %d", limit, got, want)
		}
	}
}

// A watcher that is behind loses no event, until too many wait. Then it is told to
// look at the profiles.
func TestABurstIsKeptForAWatcher(t *testing.T) {
	h := newHub()
	w, _ := h.subscribe(1)
	for i := range eventBacklog {
		h.publish(ipc.Event{Event: fmt.Sprint(i)})
	}
	events, missed := h.take(w)
	if missed || len(events) != eventBacklog {
		t.Fatalf("%d events, missed %v", len(events), missed)
	}
	for i, e := range events {
		if e.Event != fmt.Sprint(i) {
			t.Fatalf("event %d is %s", i, e.Event)
		}
	}
	for range 3 * eventBacklog {
		h.publish(ipc.Event{})
	}
	if events, missed := h.take(w); !missed || len(events) != 0 {
		t.Errorf("%d events, missed %v", len(events), missed)
	}
	h.publish(ipc.Event{Event: "next"})
	if events, missed := h.take(w); missed || len(events) != 1 || events[0].Event != "next" {
		t.Errorf("%v, missed %v", events, missed)
	}
}

// watchSlowly follows the events of handler from the time when burst has returned.
func watchSlowly(t *testing.T, socket string, burst func()) *bufio.Reader {
	t.Helper()
	c, err := net.Dial("unix", socket)
	do(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, err = io.WriteString(c, "GET "+ipc.RouteEvents+" HTTP/1.0\r\n\r\n")
	do(t, err)
	r := bufio.NewReaderSize(c, 16) // it takes little beyond the line
	line, err := r.ReadString('\n')
	if err != nil || !strings.Contains(line, " 200 ") {
		t.Fatalf("%q, %v", line, err)
	}
	burst()
	return r
}

// More events at once than a stream's buffers hold reach a watcher that reads only
// then.
func TestABurstDoesNotCutAWatcher(t *testing.T) {
	d := &Daemon{}
	d.hub.init()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := server.Listen(socket)
	do(t, err)
	s := server.New(l, http.HandlerFunc(api{d}.handleEvents), server.Hooks{})
	go func() { _ = s.Serve() }() // ends with the test
	t.Cleanup(func() { _ = s.Close() })
	const burst = 500
	r := watchSlowly(t, socket, func() {
		for range burst {
			d.hub.publish(ipc.Event{Event: "burst", Status: &ipc.ProfileStatus{LastError: strings.Repeat("x", 2000)}})
		}
	})
	for n := 0; n < burst; {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended after %d events: %v", n, err)
		}
		if line == "event: burst\n" {
			n++
		}
	}
}

// The lock of 100 profiles is a burst.
func TestALockOfManyProfilesReachesAWatcher(t *testing.T) {
	a := newAgent(t)
	for i := range 100 {
		do(t, a.ask("POST", ipc.RouteAdopt, a.login(fmt.Sprint("p", i), "memory"), http.StatusOK))
	}
	r := watchSlowly(t, a.options.Listener.Addr().String(), func() {
		do(t, a.ask("POST", ipc.RouteLock, []byte("{}"), http.StatusOK))
	})
	locked := map[string]bool{}
	for len(locked) < 100 {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended when %d profiles were locked: %v", len(locked), err)
		}
		if name, _, found := strings.Cut(strings.TrimPrefix(line, "data: "), `"state":"locked"`); found {
			_, name, _ = strings.Cut(name, `"profile":"`)
			name, _, _ = strings.Cut(name, `"`)
			locked[name] = true
		}
	}
}
