package store_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"bloq-agent/store"
	"bloq-agent/store/storetest"
)

// TestProbeChild is run in the environments of TestEveryConditionHasItsName.
func TestProbeChild(t *testing.T) {
	if os.Getenv(child) == "" {
		t.Skip("runs as the child of TestEveryConditionHasItsName")
	}
	start := time.Now()
	err := store.Probe(t.Context(), store.NewKeyring())
	reason := "ok"
	var u *store.Unavailable
	if errors.As(err, &u) {
		reason = u.Reason
	} else if err != nil {
		reason = err.Error()
	}
	t.Logf("reason: %s; after %dms", reason, time.Since(start).Milliseconds())
}

// The conditions that a Secret Service is found in, each with real components:
// named within 6 s, and nothing hangs.
func TestEveryConditionHasItsName(t *testing.T) {
	none := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	for _, tt := range []struct {
		name string
		env  func(t *testing.T) []string
		want string
	}{
		{"no bus", func(t *testing.T) []string {
			if _, err := os.Stat("/run/user/0/bus"); err == nil {
				t.Skip("this machine has a session bus")
			}
			return none
		}, "no D-Bus session"},
		{"the bus is gone", func(t *testing.T) []string {
			return append(none, "DBUS_SESSION_BUS_ADDRESS=unix:path="+t.TempDir()+"/none")
		}, "gone"},
		{"no service", func(t *testing.T) []string { return storetest.StartBus(t, false).Env }, "no Secret Service"},
		{"a new service without a collection", func(t *testing.T) []string { return storetest.StartBus(t, true).Env }, "no collection"},
		{"unlocked", func(t *testing.T) []string { return storetest.StartSecretService(t).Env }, "ok"},
		{"locked", func(t *testing.T) []string {
			s := storetest.StartSecretService(t)
			s.Lock(t)
			return s.Env
		}, "locked"},
		{"locked, with a display", func(t *testing.T) []string {
			s := storetest.StartSecretService(t)
			s.Lock(t)
			return append(s.Env, "DISPLAY="+storetest.StartX(t))
		}, "locked"},
		{"frozen", func(t *testing.T) []string {
			s := storetest.StartSecretService(t)
			if err := syscall.Kill(s.PID, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			return s.Env
		}, "frozen"},
		{"refused", func(t *testing.T) []string {
			s := storetest.StartBusWith(t, true, storetest.Refusing)
			s.StartKeyring(t)
			return s.Env
		}, "refused"},
		{"killed", func(t *testing.T) []string {
			s := storetest.StartSecretService(t)
			if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			return s.Env // the bus starts another, which is locked
		}, "locked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestProbeChild$", "-test.v")
			cmd.Env = append(tt.env(t), child+"=1")
			b, err := cmd.CombinedOutput()
			out := string(b)
			_, rest, _ := strings.Cut(out, "reason: ")
			reason, after, _ := strings.Cut(rest, "; after ")
			after, _, found := strings.Cut(after, "\n")
			took, parseErr := time.ParseDuration(after)
			if err != nil || !found || parseErr != nil || reason != tt.want {
				t.Errorf("%q, want %q\n%s", reason, tt.want, out)
			}
			if took > 6*time.Second {
				t.Errorf("named after %v", took)
			}
			t.Logf("%s after %v", reason, took.Round(time.Millisecond))
		})
	}
}

// The bus tells when a keyring is unlocked, so that nobody needs to poll.
func TestWatchHearsOfAnUnlock(t *testing.T) {
	if os.Getenv(child) == "" {
		s := storetest.StartSecretService(t)
		s.Lock(t)
		cmd := exec.Command(os.Args[0], "-test.run=^TestWatchHearsOfAnUnlock$", "-test.v")
		cmd.Env = append(s.Env, child+"=1")
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		said := ""
		for !strings.Contains(said, "watching") {
			n, err := out.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			said += string(buf[:n])
		}
		s.Unlock(t)
		if err := cmd.Wait(); err != nil {
			t.Errorf("child: %v", err)
		}
		return
	}
	changed := store.NewKeyring().Watch(t.Context())
	_, _ = os.Stdout.WriteString("watching\n")
	select {
	case _, stands := <-changed:
		if !stands {
			t.Fatal("the watch has ended")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was heard")
	}
}
