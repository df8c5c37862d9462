package storetest

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// A SecretService is a private session bus, and what runs on it.
type SecretService struct {
	// Env points a program at it, and at throw-away directories.
	Env []string
	// PID is gnome-keyring-daemon's; 0 before StartKeyring.
	PID int
	// Dir holds the keyring's file.
	Dir string

	address string
	config  string // of the bus
	bus     *exec.Cmd
	as      *syscall.SysProcAttr // whose it all is; nil: ours
}

const (
	secretsName = "org.freedesktop.secrets"
	secretsPath = dbus.ObjectPath("/org/freedesktop/secrets")
	loginPath   = dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
	password    = "test-password"
)

// StartSecretService runs a bus with a real, unlocked gnome-keyring on it until
// the test ends, or skips the test where that is not possible.
func StartSecretService(t *testing.T) *SecretService {
	t.Helper()
	s := StartBus(t, true)
	s.StartKeyring(t)
	return s
}

// Refusing is a rule for StartBusWith: nobody may ask what the service is like.
const Refusing = `<deny send_interface="org.freedesktop.DBus.Properties"/>`

// StartBus runs a bus alone. It knows which services could be started on it
// only if activation is true.
func StartBus(t *testing.T, activation bool) *SecretService {
	t.Helper()
	return StartBusWith(t, activation, "")
}

// StartBusWith is StartBus with rules of its policy that go over the others
// (dbus-daemon(1)).
func StartBusWith(t *testing.T, activation bool, rules string) *SecretService {
	t.Helper()
	return startBusOf(t, os.Getuid(), "unix:path=", activation, rules)
}

// StartSecretServiceOf is StartSecretService for the user uid, which takes root.
// Transport is how its bus is reached: unix:path= or unix:abstract=.
func StartSecretServiceOf(t *testing.T, uid int, transport string) *SecretService {
	t.Helper()
	if uid != os.Getuid() && os.Getuid() != 0 {
		t.Skip("takes root: a bus of another user")
	}
	s := startBusOf(t, uid, transport, true, "")
	s.StartKeyring(t)
	return s
}

// Address is the bus's, without its guid.
func (s *SecretService) Address() string { return s.address }

// Socket is where a bus of unix:path= listens.
func (s *SecretService) Socket() string { return filepath.Join(filepath.Dir(s.config), "bus") }

func startBusOf(t *testing.T, uid int, transport string, activation bool, rules string) *SecretService {
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
	if uid != os.Getuid() {
		rules += `<allow user="*"/>` // us, too
	}
	services := ""
	if activation {
		services = "<servicedir>/usr/share/dbus-1/services</servicedir>"
	}
	config := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, []byte(`<busconfig><type>session</type><listen>`+transport+dir+`/bus</listen>`+services+
		`<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>`+rules+`</policy></busconfig>`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.config = config
	if uid != os.Getuid() {
		s.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		for _, path := range []string{dir, data, filepath.Join(data, "keyrings"), config} {
			if err := os.Chown(path, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.startBus(t)
	s.Env = append(s.Env, "DBUS_SESSION_BUS_ADDRESS="+s.address)
	return s
}

// StopBus kills the bus, and with it whatever was on it.
func (s *SecretService) StopBus(t *testing.T) {
	t.Helper()
	if err := s.bus.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.bus.Wait() // killed
}

// RestartBus runs a bus at the same address, and an unlocked keyring on it.
func (s *SecretService) RestartBus(t *testing.T) {
	t.Helper()
	if err := os.Remove(filepath.Join(filepath.Dir(s.config), "bus")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	s.startBus(t)
	s.StartKeyring(t)
}

// StartKeyring runs gnome-keyring-daemon, unlocked, and waits for it.
func (s *SecretService) StartKeyring(t *testing.T) {
	t.Helper()
	owned := nameOwned(t, s.address)
	keyring := exec.Command("gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
	keyring.Env, keyring.SysProcAttr = s.Env, s.as
	// Nothing on stdin would leave it locked; the password may not be empty.
	keyring.Stdin = strings.NewReader(password)
	start(t, keyring)
	s.PID = keyring.Process.Pid
	select {
	case <-owned:
	case <-time.After(20 * time.Second):
		t.Fatal("gnome-keyring-daemon did not take its name on the bus")
	}
}

// Items is how many items the login collection holds. It may be locked.
func (s *SecretService) Items(t *testing.T) int {
	t.Helper()
	c, err := dbus.Connect(s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	v, err := c.Object(secretsName, loginPath).GetProperty("org.freedesktop.Secret.Collection.Items")
	if err != nil {
		t.Fatal(err)
	}
	paths, _ := v.Value().([]dbus.ObjectPath)
	return len(paths)
}

// Lock locks the login collection.
func (s *SecretService) Lock(t *testing.T) {
	t.Helper()
	s.call(t, func(o dbus.BusObject) error {
		return o.Call("org.freedesktop.Secret.Service.Lock", 0, []dbus.ObjectPath{loginPath}).Err
	})
}

// Unlock unlocks it as a login session would, without a prompt: by
// gnome-keyring's private interface.
func (s *SecretService) Unlock(t *testing.T) {
	t.Helper()
	type secret struct {
		Session           dbus.ObjectPath
		Parameters, Value []byte
		ContentType       string
	}
	s.call(t, func(o dbus.BusObject) error {
		var output dbus.Variant
		var session dbus.ObjectPath
		err := o.Call("org.freedesktop.Secret.Service.OpenSession", 0, "plain", dbus.MakeVariant("")).Store(&output, &session)
		if err != nil {
			return err
		}
		return o.Call("org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface.UnlockWithMasterPassword", 0,
			loginPath, secret{session, nil, []byte(password), "text/plain"}).Err
	})
}

func (s *SecretService) call(t *testing.T, f func(dbus.BusObject) error) {
	t.Helper()
	c, err := dbus.Connect(s.address)
	if err == nil {
		err = f(c.Object(secretsName, secretsPath))
		_ = c.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
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

// startBus returns when the bus can be asked.
func (s *SecretService) startBus(t *testing.T) {
	t.Helper()
	s.bus = exec.Command("dbus-daemon", "--config-file="+s.config, "--nofork", "--nopidfile", "--print-address")
	s.bus.Env, s.bus.SysProcAttr = s.Env, s.as
	out, err := s.bus.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, s.bus)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("dbus-daemon said no address: %v", err)
	}
	// Its guid is another when it is started again.
	s.address, _, _ = strings.Cut(strings.TrimSpace(line), ",guid=")
}

// StartX runs a display without a screen until the test ends, and returns its
// name: where there is one, a service can ask a person at a prompt.
func StartX(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("Xvfb"); err != nil {
		t.Skip("no Xvfb: apt-get install -y --no-install-recommends xvfb")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("Xvfb", "-displayfd", "3", "-nolisten", "tcp")
	cmd.ExtraFiles = []*os.File{w}
	start(t, cmd)
	_ = w.Close()
	buf := make([]byte, 16)
	_ = r.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, err := r.Read(buf)
	if err != nil {
		t.Fatalf("Xvfb did not start: %v", err)
	}
	return ":" + strings.TrimSpace(string(buf[:n]))
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
