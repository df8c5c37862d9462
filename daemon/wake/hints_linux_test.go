package wake

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// A network is one of its own, with a loopback device that is down.
type network struct{ control int }

// inNewNetwork runs f there. Sockets that f opens stay in it.
func inNewNetwork(t *testing.T, f func(n network)) {
	t.Helper()
	unshared := make(chan error)
	go func() { // ends with f
		// Never unlocked, so that the thread ends with the goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		var n network
		if err == nil {
			n.control, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		}
		if err == nil {
			defer func() { _ = unix.Close(n.control) }()
			f(n)
		}
		unshared <- err
	}()
	if err := <-unshared; err != nil {
		t.Skipf("a network of its own takes root: unshare: %v", err)
	}
}

// toggle takes the loopback device up or down.
func (n network) toggle(t *testing.T) {
	t.Helper()
	r, err := unix.NewIfreq("lo")
	if err == nil {
		err = unix.IoctlIfreq(n.control, unix.SIOCGIFFLAGS, r)
	}
	if err == nil {
		r.SetUint16(r.Uint16() ^ unix.IFF_UP)
		err = unix.IoctlIfreq(n.control, unix.SIOCSIFFLAGS, r)
	}
	if err != nil {
		t.Error(err) // not Fatal: this is not the test's goroutine
	}
}

// noBus is for tests that must not meet the machine's.
func noBus(t *testing.T) {
	t.Helper()
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
}

// systemBus starts a private one, on which anybody may say anything. It runs
// until it is killed or the test ends.
func systemBus(t *testing.T) (kill func()) {
	t.Helper()
	for _, program := range []string{"dbus-daemon", "dbus-send"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("no " + program + ": apt-get install -y --no-install-recommends dbus")
		}
	}
	dir, err := os.MkdirTemp("", "bloq-bus-") // t.TempDir can be too long for a socket
	do(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	config := filepath.Join(dir, "bus.conf")
	do(t, os.WriteFile(config, []byte(`<busconfig><listen>unix:path=`+dir+`/bus</listen>`+
		`<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow user="*"/></policy></busconfig>`), 0o600))
	bus := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile", "--nosyslog", "--print-address")
	out, err := bus.StdoutPipe()
	do(t, err)
	do(t, bus.Start())
	kill = func() {
		_ = bus.Process.Kill()
		_ = bus.Wait()
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	do(t, err)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", strings.TrimSpace(line))
	return kill
}

// prepare sends what logind does: true before sleep, false after it.
func prepare(t *testing.T, begins string) {
	t.Helper()
	out, err := exec.Command("dbus-send", "--bus="+os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), "--type=signal",
		"/org/freedesktop/login1", "org.freedesktop.login1.Manager.PrepareForSleep", "boolean:"+begins).CombinedOutput()
	if err != nil {
		t.Fatalf("dbus-send: %v, %s", err, out)
	}
}

// logindOnly fails the test for every missing source except logind.
func logindOnly(t *testing.T) func(string, error) {
	return func(what string, err error) {
		if !strings.HasPrefix(what, "logind ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// More changes than a socket holds, and one after them.
func TestAnOverflowOfNetlinkIsAChange(t *testing.T) {
	inNewNetwork(t, func(n network) {
		proof, err := openNetlink()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = proof.Close() }()
		f, err := openNetlink()
		if err != nil {
			t.Error(err)
			return
		}
		for range 1000 {
			n.toggle(t)
		}
		if err := proof.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Error(err)
		}
		if _, err := proof.Read(make([]byte, 1)); !errors.Is(err, unix.ENOBUFS) {
			t.Errorf("Read after a flood: %v; want %v", err, unix.ENOBUFS)
		}
		ctx, cancel := context.WithCancel(t.Context())
		h := &listener{seen: make(chan struct{}, 1)}
		h.done.Go(func() { h.readNetlink(ctx, f) })
		for range 2 { // had the overflow been the end, there would be one at most
			select {
			case <-h.seen:
			case <-time.After(10 * time.Second):
				t.Error("no sign after an overflow")
			}
			n.toggle(t)
		}
		cancel()
		mustEnd(t, h)
	})
}

// mustEnd waits for h's goroutines.
func mustEnd(t *testing.T, h *listener) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.done.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("a goroutine goes on")
	}
}

// listen starts to listen to logind, and waits until it does.
func listen(ctx context.Context, t *testing.T) *listener {
	t.Helper()
	h := &listener{missing: logindOnly(t), seen: make(chan struct{}, 1)}
	h.done.Go(func() { h.readLogind(ctx) })
	for deadline := time.Now().Add(20 * time.Second); len(h.seen) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the end of a sleep was not seen")
		}
		prepare(t, "false") // again and again: nobody says when the subscription stands
	}
	return h
}

func TestASignOfLogind(t *testing.T) {
	systemBus(t)
	goroutines, descriptors := runtime.NumGoroutine(), openFDs(t)
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		h := listen(ctx, t)
		cancel()
		mustEnd(t, h)
	}
	mustLeaveNothing(t, goroutines, descriptors)
}

// mustLeaveNothing allows for what the last round leaves, which may still be on
// its way out.
func mustLeaveNothing(t *testing.T, goroutines, descriptors int) {
	t.Helper()
	if n := runtime.NumGoroutine(); n > goroutines+5 {
		t.Errorf("%d goroutines before, %d after", goroutines, n)
	}
	if n := openFDs(t); n > descriptors+2 {
		t.Errorf("%d descriptors before, %d after", descriptors, n)
	}
}

func TestResumed(t *testing.T) {
	const name = "org.freedesktop.login1.Manager.PrepareForSleep"
	for _, tt := range []struct {
		name string
		body []any
		want bool
	}{
		{name, []any{false}, true},
		{name, []any{true}, false},
		{name, []any{"false"}, false},
		{name, []any{}, false},
		{name, nil, false},
		{name, []any{false, false}, false},
		{"org.freedesktop.login1.Manager.PrepareForShutdown", []any{false}, false},
		{"org.freedesktop.DBus.NameAcquired", []any{":1.1"}, false},
	} {
		if got := resumed(tt.name, tt.body); got != tt.want {
			t.Errorf("resumed(%s, %v) = %v", tt.name, tt.body, got)
		}
	}
}

func TestWithoutASystemBusThereIsNoNoise(t *testing.T) {
	for _, address := range []string{"unix:path=/nonexistent/bus", "autolaunch:", "nonsense"} {
		t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
		h := &listener{missing: logindOnly(t), seen: make(chan struct{}, 1)}
		h.readLogind(t.Context()) // returns at once
	}
}

// A bus that goes away ends the listening to it, and nothing else.
func TestABusThatGoesAway(t *testing.T) {
	kill := systemBus(t)
	h := listen(t.Context(), t)
	kill()
	mustEnd(t, h)
}

func TestListeningLeavesNothing(t *testing.T) {
	for name, bus := range map[string]func(*testing.T){"with a bus": func(t *testing.T) { systemBus(t) }, "without": noBus} {
		t.Run(name, func(t *testing.T) {
			bus(t)
			goroutines, descriptors := runtime.NumGoroutine(), openFDs(t)
			for round := 0; round < 50 && !t.Failed(); round++ {
				ctx, cancel := context.WithCancel(t.Context())
				h := watch(ctx, func() {}, logindOnly(t))
				cancel()
				mustEnd(t, h)
			}
			mustLeaveNothing(t, goroutines, descriptors)
		})
	}
}

func TestSignsThatComeCloseTogetherAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var called []time.Duration
		h := &listener{seen: make(chan struct{}, 1)}
		h.done.Go(func() { h.settle(ctx, func() { called = append(called, time.Since(start)) }) })
		sign := func(n int) {
			for range n {
				h.see()
				time.Sleep(100 * time.Millisecond)
			}
		}
		sign(1) // at 0
		time.Sleep(9900 * time.Millisecond)
		sign(21) // 10.0 to 12.0
		time.Sleep(7900 * time.Millisecond)
		sign(100) // 20.0 to 29.9
		time.Sleep(time.Hour)
		cancel()
		h.done.Wait()
		want := []time.Duration{settleTime, 12*time.Second + settleTime, 20*time.Second + settleMax, 30 * time.Second}
		if len(called) != len(want) {
			t.Fatalf("called at %v, want about %v", called, want)
		}
		for i := range want {
			if diff := (called[i] - want[i]).Abs(); diff > 200*time.Millisecond {
				t.Errorf("called at %v, want %v", called[i], want[i])
			}
		}
	})
}
