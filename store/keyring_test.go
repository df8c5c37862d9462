package store_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bloq-agent/store"
	"bloq-agent/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMemory() })
}

// child names the environment variable that makes a test of this file run as
// the child of another, inside a Secret Service of its own, which it finds in its
// environment.
const child = "BLOQ_TEST_CHILD"

// inSecretService runs the test called name again, as a child.
func inSecretService(t *testing.T, name string) {
	t.Helper()
	service := storetest.StartSecretService(t)
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$", "-test.v")
	cmd.Env = append(service.Env, child+"="+strconv.Itoa(service.PID))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+name) {
		t.Fatalf("child: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if _, logged, found := strings.Cut(line, "_test.go:"); found {
			_, figure, _ := strings.Cut(strings.TrimSpace(logged), ": ")
			t.Log(figure)
		}
	}
}

func TestKeyringOverTheRealSecretService(t *testing.T) {
	if os.Getenv(child) == "" {
		inSecretService(t, "TestKeyringOverTheRealSecretService")
		return
	}
	storetest.Run(t, func(*testing.T) store.Store { return store.NewKeyring() })
}

// A frozen service answers nothing, ever.
func TestAFrozenKeyringIsBoundedAndHeals(t *testing.T) {
	if os.Getenv(child) == "" {
		inSecretService(t, "TestAFrozenKeyringIsBoundedAndHeals")
		return
	}
	pid, err := strconv.Atoi(os.Getenv(child))
	if err != nil {
		t.Fatal(err)
	}
	k := store.NewKeyring()
	if err := store.Probe(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var calls sync.WaitGroup
	for range 10 { // as many profiles; none waits behind another
		calls.Go(func() {
			var u *store.Unavailable
			if _, err := k.Load(t.Context(), store.NewID()); !errors.As(err, &u) || u.Locked || u.Reason != "frozen" {
				t.Errorf("frozen: %v", err)
			}
		})
	}
	calls.Wait()
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("named after %v", took)
	} else {
		t.Logf("ten calls gave up after %v", took.Round(time.Millisecond))
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for store.Probe(t.Context(), k) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the keyring answers again, and we do not notice")
		}
	}
}

// Without a bus the D-Bus library would start one with dbus-launch, where
// nobody would ever unlock a keyring.
func TestNoBusIsLaunched(t *testing.T) {
	if _, err := os.Stat("/run/user/" + strconv.Itoa(os.Getuid()) + "/bus"); err == nil {
		t.Skip("this machine has a session bus")
	}
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	script := "#!/bin/sh\necho run >" + trace + "\n"
	if err := os.WriteFile(filepath.Join(dir, "dbus-launch"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	for _, address := range []string{"", "autolaunch:"} {
		t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
		var u *store.Unavailable
		if _, err := store.NewKeyring().Load(t.Context(), store.NewID()); !errors.As(err, &u) || !strings.Contains(err.Error(), "(no D-Bus session)") {
			t.Errorf("address %q: %v", address, err)
		}
	}
	if _, err := os.Stat(trace); err == nil {
		t.Error("dbus-launch was run")
	}
}

func TestABusThatIsGone(t *testing.T) {
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestABusThatIsGone$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1", "DBUS_SESSION_BUS_ADDRESS=unix:path="+t.TempDir()+"/none")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	var u *store.Unavailable
	if _, err := store.NewKeyring().Load(t.Context(), store.NewID()); !errors.As(err, &u) || u.Reason != "gone" {
		t.Errorf("%v", err)
	}
}
