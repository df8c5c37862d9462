package store_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bloq-agent/store"
	"bloq-agent/store/storetest"
	"bloq-agent/store/trusted"
)

const stranger = 65534 // neither us nor root

// probeBus is what a keyring says in an environment when a login is saved.
func probeBus(t *testing.T, address, runtimeDir string) error {
	t.Helper()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", address)
	t.Setenv("XDG_RUNTIME_DIR", runtimeDir)
	k := store.NewKeyring()
	defer k.Close()
	item := store.Item{Origin: "https://x.example", RefreshToken: store.NewSecret([]byte("a year long"))}
	if err := k.Save(t.Context(), store.NewID(), item); err != nil {
		return err
	}
	return store.Probe(t.Context(), k)
}

// distrusts checks the sentence that a person reads, and that there is a way out.
func distrusts(t *testing.T, err error, sentence string) {
	t.Helper()
	var u *store.Unavailable
	if !errors.As(err, &u) || u.Reason != "D-Bus session not trusted" || u.Locked || u.Hint != store.HintFile ||
		trusted.Mend(err) != "" || err.Error() != "waiting for the keyring (D-Bus session not trusted): "+sentence {
		t.Errorf("got  %v\nwant … %s", err, sentence)
	}
}

// broughtHere puts a bus's socket into a new directory of ours, too.
func broughtHere(t *testing.T, socket string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bus")
	do(t, os.Link(socket, path))
	return path
}

func TestABusOfAnotherUserGetsNothing(t *testing.T) {
	store.UseRunUser(t, t.TempDir())
	byPath := storetest.StartSecretServiceOf(t, stranger, "unix:path=")
	abstract := storetest.StartSecretServiceOf(t, stranger, "unix:abstract=")
	ours := storetest.StartSecretService(t)
	dir := filepath.Dir(byPath.Socket())
	way := byPath.Socket() + ": " + dir + " belongs to another user"

	err := probeBus(t, byPath.Address(), "")
	if err == nil || !strings.Contains(err.Error(), way) {
		t.Errorf("%v, want … %s", err, way)
	}
	for _, list := range []string{byPath.Address() + ";" + ours.Address(), "unix:path=/nonexistent;" + byPath.Address()} {
		if err := probeBus(t, list, ""); err == nil || !strings.Contains(err.Error(), way) {
			t.Errorf("%s: %v", list, err)
		}
	}
	if err := probeBus(t, "", dir); err == nil || !strings.Contains(err.Error(), way) {
		t.Errorf("XDG_RUNTIME_DIR: %v", err)
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", byPath.Address())
	if store.NewKeyring().Watch(t.Context()) != nil {
		t.Error("it is watched")
	}
	name := strings.TrimPrefix(abstract.Address(), "unix:abstract=")
	distrusts(t, probeBus(t, abstract.Address(), ""), "the bus at unix:abstract="+name+" is served by another user (uid 65534)")

	// As if it had come to a place of ours.
	path := broughtHere(t, byPath.Socket())
	distrusts(t, probeBus(t, "unix:path="+path, ""), path+" belongs to another user (uid 65534)")
	do(t, os.Chown(path, 0, 0))
	distrusts(t, probeBus(t, "unix:path="+path, ""), "the bus at "+path+" is served by another user (uid 65534)")
	for _, s := range []*storetest.SecretService{byPath, abstract} {
		if n := s.Items(t); n > 0 {
			t.Errorf("another user's keyring holds %d items", n)
		}
	}
}

func TestWhereABusMayLie(t *testing.T) {
	store.UseRunUser(t, t.TempDir())
	s := storetest.StartSecretService(t)
	do(t, probeBus(t, s.Address(), ""))
	dir := filepath.Dir(s.Socket())
	link := filepath.Join(t.TempDir(), "link")
	do(t, os.Symlink(dir, link))
	do(t, probeBus(t, "unix:path="+link+"/bus", ""))

	do(t, os.Chmod(dir, 0o707))
	for _, path := range []string{dir + "/bus", link + "/bus"} {
		distrusts(t, probeBus(t, "unix:path="+path, ""), path+": "+dir+" can be written by others")
	}
	do(t, os.Chmod(dir, 0o707|os.ModeSticky))
	do(t, probeBus(t, s.Address(), "")) // as the bus of dbus-run-session in /tmp
	do(t, os.Chmod(dir, 0o700))

	file := filepath.Join(dir, "file")
	do(t, os.WriteFile(file, nil, 0o600))
	distrusts(t, probeBus(t, "unix:path="+file, ""), file+" is not a socket")
}

func TestABusThatIsReachedByAnotherWayIsRefused(t *testing.T) {
	store.UseRunUser(t, t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	do(t, err)
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	ran := filepath.Join(t.TempDir(), "ran")
	good := storetest.StartSecretService(t).Address()
	for address, transport := range map[string]string{
		"tcp:host=127.0.0.1,port=" + port: "tcp:", "nonce-tcp:host=127.0.0.1,port=" + port + ",noncefile=/dev/null": "nonce-tcp:",
		"unixexec:path=/bin/touch,argv1=" + ran: "unixexec:", "launchd:env=X": "launchd:", "x\x1b[2J:y": `x\x1b[2J:`,
	} {
		want := `DBUS_SESSION_BUS_ADDRESS names a bus by "` + transport + `", and only unix:path= and unix:abstract= show who serves it`
		distrusts(t, probeBus(t, address, ""), want)
		distrusts(t, probeBus(t, good+";"+address, ""), want)
		distrusts(t, probeBus(t, address+";"+good, ""), want)
	}
	for address, want := range map[string]string{
		"unix:": "DBUS_SESSION_BUS_ADDRESS has a unix: address with neither path= nor abstract=", "unix:dir=/tmp": "DBUS_SESSION_BUS_ADDRESS has a unix: address with neither path= nor abstract=",
		"unix:path=bus": "DBUS_SESSION_BUS_ADDRESS has a unix:path= that makes no sense", "unix:path=/a%zz": "DBUS_SESSION_BUS_ADDRESS has a unix:path= that makes no sense",
		"unix:path=/a,path=/b": "DBUS_SESSION_BUS_ADDRESS has a unix:path= that makes no sense", "unix:path=/a,abstract=b": "DBUS_SESSION_BUS_ADDRESS has a unix:abstract= that makes no sense",
		"unix:abstract=": "DBUS_SESSION_BUS_ADDRESS has a unix:abstract= that makes no sense", "unix:abstract=%00x": "DBUS_SESSION_BUS_ADDRESS has a unix:abstract= that makes no sense",
	} {
		distrusts(t, probeBus(t, address, ""), want)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the program of unixexec: was run")
	}
}

func TestAStaleAddressFallsBack(t *testing.T) {
	s := storetest.StartSecretService(t)
	dir, stale := filepath.Dir(s.Socket()), filepath.Join(t.TempDir(), "bus")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	do(t, err)
	dead.SetUnlinkOnClose(false)
	do(t, dead.Close())
	runUser := t.TempDir()
	store.UseRunUser(t, runUser)
	addresses := []string{
		"", "autolaunch:", "unix:path=/nonexistent/bus", "unix:path=" + stale, "unix:abstract=/nonexistent/bloq-test", "unix:path=" + stale + ";unix:abstract=/nonexistent/bloq-test",
	}
	for _, address := range addresses {
		do(t, probeBus(t, address, dir))
		var u *store.Unavailable
		if err := probeBus(t, address, t.TempDir()); !errors.As(err, &u) || u.Reason != map[bool]string{true: "no D-Bus session", false: "gone"}[address == "" || address == "autolaunch:"] {
			t.Errorf("%q, and none there: %v", address, err)
		}
		do(t, probeBus(t, address+";"+s.Address(), ""))
	}
	do(t, os.Symlink(dir, filepath.Join(runUser, fmt.Sprint(os.Getuid()))))
	for _, address := range addresses {
		do(t, probeBus(t, address, ""))
		do(t, probeBus(t, address, filepath.Dir(stale)))
	}
}

// TestStrangeBus is run as another user by the test below. It says what it was
// sent, and answers nothing.
func TestStrangeBus(t *testing.T) {
	path := os.Getenv("BLOQ_TEST_LISTEN")
	if path == "" {
		t.Skip("runs as the child of TestABusThatIsSwappedInIsSentNothing")
	}
	l, err := net.Listen("unix", path)
	do(t, err)
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		do(t, err)
		n, _ := c.Read(make([]byte, 1))
		fmt.Println("heard", n)
		_ = c.Close()
	}
}

// The directory can change hands between our look at it and the connection. Who
// serves is asked of the connection itself, so not a byte is sent.
func TestABusThatIsSwappedInIsSentNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("takes root: a bus of another user")
	}
	store.UseRunUser(t, t.TempDir())
	theirs, err := os.MkdirTemp("", "bloq-swap-")
	do(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(theirs) })
	do(t, os.Chown(theirs, stranger, stranger))
	heard, stop := strangeBus(t, theirs+"/bus")
	bad, good := broughtHere(t, theirs+"/bus"), storetest.StartSecretService(t).Socket()
	do(t, os.Chown(bad, 0, 0))

	link, stopSwapping := swap(t, filepath.Dir(good), filepath.Dir(bad))
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+link+"/bus")
	outcomes := map[string]int{}
	for i := 0; i < 5000 && (i < 200 || len(outcomes) < 2); i++ {
		k := store.NewKeyring()
		_, err := k.Load(t.Context(), store.NewID())
		k.Close()
		var u *store.Unavailable
		switch {
		case errors.Is(err, store.ErrNotFound):
			outcomes["ours"]++
		case errors.As(err, &u) && u.Reason == "D-Bus session not trusted":
			outcomes["theirs"]++
		default:
			t.Fatal(err)
		}
	}
	stopSwapping()
	stop()
	connections := 0
	for line := range heard {
		if strings.HasPrefix(line, "heard") {
			connections++
		}
		if line == "heard 1" {
			t.Error("another user's bus was sent something")
		}
	}
	t.Logf("%v; %d connections to a bus of another user", outcomes, connections)
	if len(outcomes) < 2 || connections == 0 {
		t.Error("there was no swap, so this proves nothing")
	}
}

// swap has a link lead to one directory and to the other in turn, all the time.
func swap(t *testing.T, a, b string) (link string, stop func()) {
	t.Helper()
	dir := t.TempDir()
	link = filepath.Join(dir, "link")
	do(t, os.Symlink(a, link))
	done, ended := make(chan struct{}), make(chan error, 1)
	go func() { // ends with done
		for i := 0; ; i++ {
			select {
			case <-done:
				ended <- nil
				return
			default:
			}
			next := filepath.Join(dir, "next")
			if err := errors.Join(os.Symlink([]string{b, a}[i%2], next), os.Rename(next, link)); err != nil {
				ended <- err
				return
			}
		}
	}()
	return link, func() {
		close(done)
		do(t, <-ended)
	}
}

// strangeBus returns what a bus of another user says, line by line, and what
// ends it.
func strangeBus(t *testing.T, path string) (<-chan string, func()) {
	t.Helper()
	program := filepath.Join(filepath.Dir(path), "bus.test") // ours may be in a directory that is closed
	b, err := os.ReadFile(os.Args[0])
	do(t, err)
	do(t, os.WriteFile(program, b, 0o755))
	do(t, os.Chmod(program, 0o755))
	cmd := exec.Command(program, "-test.run=^TestStrangeBus$")
	cmd.Env = []string{"BLOQ_TEST_LISTEN=" + path}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
	out, err := cmd.StdoutPipe()
	do(t, err)
	do(t, cmd.Start())
	lines := make(chan string, 1<<16)
	ready := make(chan struct{})
	go func() { // ends with the process
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			if s.Text() == "listening" {
				close(ready)
			}
			lines <- s.Text()
		}
	}()
	stop := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(stop) // of a test that fails before it stops it
	<-ready
	return lines, stop
}
