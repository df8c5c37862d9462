package storetest

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// A SecretService is a private session bus with a real gnome-keyring on it,
// unlocked.
type SecretService struct {
	// Env points a program at it, and at throw-away directories.
	Env []string
	// PID is gnome-keyring-daemon's.
	PID int
	// Dir holds the keyring's file.
	Dir string
}

const secretsName = "org.freedesktop.secrets"

// StartSecretService runs one until the test ends, or skips the test where
// that is not possible.
func StartSecretService(t *testing.T) *SecretService {
	t.Helper()
	for _, program := range []string{"dbus-daemon", "gnome-keyring-daemon"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("no " + program + ": apt-get install -y --no-install-recommends dbus gnome-keyring")
		}
	}
	dir, err := os.MkdirTemp("", "bloq-ss-") // 0700; t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(filepath.Join(data, "keyrings"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := &SecretService{Dir: data, Env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_DATA_HOME=" + data, "XDG_RUNTIME_DIR=" + dir,
	}}
	address := startBus(t, s.Env)
	s.Env = append(s.Env, "DBUS_SESSION_BUS_ADDRESS="+address)
	owned := nameOwned(t, address)
	keyring := exec.Command("gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
	keyring.Env = s.Env
	// Nothing on stdin would leave it locked; the password may not be empty.
	keyring.Stdin = strings.NewReader("test-password")
	start(t, keyring)
	s.PID = keyring.Process.Pid
	select {
	case <-owned:
	case <-time.After(20 * time.Second):
		t.Fatal("gnome-keyring-daemon did not take its name on the bus")
	}
	return s
}

// start runs cmd until the test ends.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// startBus returns the address of a new bus.
func startBus(t *testing.T, env []string) string {
	t.Helper()
	bus := exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address")
	bus.Env = env
	out, err := bus.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, bus)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-daemon said no address: %v", err)
	}
	return strings.TrimSpace(line)
}

// nameOwned is closed when somebody offers the Secret Service on the bus.
func nameOwned(t *testing.T, address string) <-chan struct{} {
	t.Helper()
	c, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	signals := make(chan *dbus.Signal, 16)
	c.Signal(signals)
	err = c.AddMatchSignalContext(context.Background(),
		dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, secretsName))
	if err != nil {
		t.Fatal(err)
	}
	owned := make(chan struct{})
	go func() { // ends with the signal, or the connection
		for s := range signals {
			if len(s.Body) == 3 && s.Body[0] == secretsName && s.Body[2] != "" {
				close(owned)
				return
			}
		}
	}()
	return owned
}
