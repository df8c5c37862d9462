package loopback

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A child of this test binary plays the part that role names.
const role = "BLOQ_TEST_LOOPBACK"

// nobody is a user who is neither root nor the one that runs the tests.
const nobody = 65534

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "listen":
		listenForOthers()
	default:
		playFilter(os.Getenv(role))
	}
}

// listenForOthers listens where its arguments say, reports that on stdout, and
// never accepts. When stdin ends it accepts what is there and reports how many
// bytes it reads.
func listenForOthers() {
	l, err := listen(context.Background(), os.Args[1], os.Args[2])
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(0)
	}
	fmt.Println(l.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Millisecond))
	total := 0
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		b, _ := io.ReadAll(c)
		total += len(b)
	}
	fmt.Println(total)
}

// listen takes net.Listen's networks, and "reuse" for TCP with SO_REUSEPORT.
func listen(ctx context.Context, network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	if network == "reuse" {
		network = "tcp4"
		lc.Control = func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		}
	}
	lc.SetMultipathTCP(strings.HasPrefix(network, "mp"))
	return lc.Listen(ctx, strings.TrimPrefix(network, "mp"), address)
}

// An other is a listener of another user.
type other struct {
	t     *testing.T
	stdin io.WriteCloser
	out   *bufio.Scanner
	at    netip.AddrPort
}

// startOther returns nil if the address is in use.
func startOther(t *testing.T, network, address string) *other {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to play another user")
	}
	cmd := exec.Command(otherBinary(t), network, address)
	cmd.Env, cmd.Dir = []string{role + "=listen"}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	stdin, err := cmd.StdinPipe()
	do(t, err)
	stdout, err := cmd.StdoutPipe()
	do(t, err)
	do(t, cmd.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	o := &other{t: t, stdin: stdin, out: bufio.NewScanner(stdout)}
	line := o.line()
	if strings.HasPrefix(line, "error: ") {
		if !strings.Contains(line, "in use") {
			t.Fatal(line)
		}
		return nil
	}
	o.at, err = netip.ParseAddrPort(line)
	do(t, err)
	return o
}

func (o *other) line() string {
	o.t.Helper()
	if !o.out.Scan() {
		o.t.Fatalf("the other user's program ended: %v", o.out.Err())
	}
	return o.out.Text()
}

// received ends o's listener, and returns how many bytes it was sent.
func (o *other) received() string {
	o.t.Helper()
	_ = o.stdin.Close()
	return o.line()
}

// otherBinary is this test binary where another user may run it.
func otherBinary(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(os.Args[0])
	do(t, err)
	dir, err := os.MkdirTemp("", "bloq-loopback-")
	do(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	do(t, os.Chmod(dir, 0o755))
	path := dir + "/other"
	do(t, os.WriteFile(path, b, 0o755))
	return path
}

// loopbackOf is l's port at a loopback address that it accepts.
func loopbackOf(network string, at netip.AddrPort) netip.AddrPort {
	if strings.HasSuffix(network, "6") {
		return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
}

// ways to listen, so that a loopback address of the network reaches it.
var ways = []struct{ network, address string }{
	{"tcp4", "127.0.0.1:0"},
	{"tcp4", "0.0.0.0:0"},
	{"tcp", "[::]:0"}, // takes IPv4 too
	{"tcp6", "[::1]:0"},
	{"tcp6", "[::]:0"},
	{"reuse", "127.0.0.1:0"},
	{"mptcp4", "127.0.0.1:0"},
	{"mptcp", "[::]:0"},
}

// Both sources name the socket, by its user and its inode.
func TestBothSourcesNameTheListener(t *testing.T) {
	for _, w := range ways {
		l, err := listen(t.Context(), w.network, w.address)
		do(t, err)
		at := loopbackOf(w.network, l.Addr().(*net.TCPAddr).AddrPort())
		want := Socket{uint32(os.Getuid()), inodeOf(t, l.(*net.TCPListener))}
		byKernel, state, err := diagnose(at, netip.AddrPortFrom(at.Addr(), 0))
		if err != nil || state != stateListen || byKernel != want {
			t.Errorf("%s: netlink says %+v in state %d, %v; want %+v", w, byKernel, state, err, want)
		}
		byList, err := listed(func(e entry) bool { return e.state == stateListen && e.accepts(at) })
		if err != nil || !slices.Equal(byList, []Socket{want}) {
			t.Errorf("%s: /proc says %+v, %v; want %+v", w, byList, err, want)
		}
		c, err := Dialer((&net.Dialer{}).DialContext)(t.Context(), "tcp", at.String())
		if err != nil {
			t.Errorf("%s: %v", w, err)
		} else {
			_ = c.Close()
		}
		_ = l.Close()
		if list, err := Listeners(at); err != nil || len(list) > 0 {
			t.Errorf("%s, closed: %+v, %v", w, list, err)
		}
	}
	if err := Check(); err != nil {
		t.Error(err)
	}
}

// A connection that nobody has accepted changes nothing about the answer, and
// the other user reads no byte, from either source.
func TestAnotherUsersListenerIsSentNothing(t *testing.T) {
	dial := Dialer((&net.Dialer{}).DialContext)
	for _, w := range ways {
		o := startOther(t, w.network, w.address)
		at := loopbackOf(w.network, o.at)
		pending, err := net.Dial("tcp", at.String())
		do(t, err)
		_, err = dial(t.Context(), "tcp", at.String())
		var e *Error
		want := fmt.Sprintf("port %d on %s belongs to another user (uid 65534); nothing was sent", at.Port(), at.Addr())
		if !errors.As(err, &e) || err.Error() != want {
			t.Errorf("%s: %v", w, err)
		}
		byList, err := listed(func(e entry) bool { return e.state == stateListen && e.accepts(at) })
		if err != nil || len(byList) != 1 || byList[0].UID != nobody {
			t.Errorf("%s: /proc says %+v, %v", w, byList, err)
		}
		if got := o.received(); got != "0" {
			t.Errorf("%s: it received %s bytes", w, got)
		}
		_ = pending.Close()
	}
}

// Another user cannot stop our calls by a listener that would not get them.
func TestAListenerThatCannotAcceptDoesNotCount(t *testing.T) {
	l, err := listen(t.Context(), "tcp4", "127.0.0.1:0")
	do(t, err)
	defer func() { _ = l.Close() }()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	if startOther(t, "tcp6", fmt.Sprintf("[::]:%d", at.Port())) == nil {
		t.Fatal("it could not listen for IPv6 beside us")
	}
	c, err := Dialer((&net.Dialer{}).DialContext)(t.Context(), "tcp", at.String())
	do(t, err)
	_ = c.Close()
}

// Listeners names one of several sockets with SO_REUSEPORT, because the kernel
// lets no other user join them.
func TestNoOtherUserSharesAPort(t *testing.T) {
	a, err := listen(t.Context(), "reuse", "127.0.0.1:0")
	do(t, err)
	defer func() { _ = a.Close() }()
	b, err := listen(t.Context(), "reuse", a.Addr().String())
	do(t, err)
	defer func() { _ = b.Close() }()
	at := a.Addr().(*net.TCPAddr).AddrPort()
	list, err := Listeners(at)
	if err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if both, err := listed(func(e entry) bool { return e.state == stateListen && e.accepts(at) }); err != nil || len(both) != 2 {
		t.Errorf("/proc says %+v, %v", both, err)
	}
	if startOther(t, "reuse", at.String()) != nil {
		t.Error("another user shares the port")
	}
}

// It is not known who has accepted the connection, so it is not used, even if the
// listeners before and after it are our own.
func TestAListenerThatChangesGetsNothing(t *testing.T) {
	for name, again := range map[string]bool{"another listener follows": true, "no listener follows": false} {
		first, err := listen(t.Context(), "tcp4", "127.0.0.1:0")
		do(t, err)
		address := first.Addr().String()
		var taken net.Conn
		swap := func() (net.Conn, error) {
			_ = first.Close()
			between, err := listen(t.Context(), "tcp4", address)
			do(t, err)
			c, err := net.Dial("tcp", address)
			do(t, err)
			taken, err = between.Accept()
			do(t, err)
			_ = between.Close()
			if again {
				last, err := listen(t.Context(), "tcp4", address)
				do(t, err)
				t.Cleanup(func() { _ = last.Close() })
			}
			return c, nil
		}
		c, err := connect(netip.MustParseAddrPort(address), swap)
		if err == nil {
			_ = c.Close()
		}
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, errChanged) {
			t.Errorf("%s: %v", name, err)
		}
		if n, err := taken.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%s: read %d bytes, %v", name, n, err)
		}
		_ = taken.Close()
	}
}

// A port where nothing listens is refused by the kernel, in its own words.
func TestAPortWithoutAListener(t *testing.T) {
	l, err := listen(t.Context(), "tcp4", "127.0.0.1:0")
	do(t, err)
	_ = l.Close()
	_, err = Dialer((&net.Dialer{}).DialContext)(t.Context(), "tcp", l.Addr().String())
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
}

// Each side of a connection has its owner, the accepted one too.
func TestTheOwnerOfAConnection(t *testing.T) {
	l, err := listen(t.Context(), "tcp", "[::]:0")
	do(t, err)
	defer func() { _ = l.Close() }()
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port))
	do(t, err)
	defer func() { _ = c.Close() }()
	far, err := l.Accept()
	do(t, err)
	defer func() { _ = far.Close() }()
	for _, c := range []net.Conn{c, far} {
		local, remote := c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
		want := Socket{uint32(os.Getuid()), inodeOf(t, c.(*net.TCPConn))}
		if got, err := Owner(local, remote); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", local, got, err, want)
		}
		list, err := listed(func(e entry) bool { return e.local == unmapped(local) && e.remote == unmapped(remote) })
		if err != nil || !slices.Equal(list, []Socket{want}) {
			t.Errorf("%s: /proc says %+v, %v", local, list, err)
		}
	}
	if s, err := Owner(netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")); !errors.Is(err, errNone) {
		t.Errorf("%+v, %v", s, err)
	}
}

// Without netlink the kernel's lists tell. Without both, nothing is sent.
func TestWithoutOneSourceAndWithoutBoth(t *testing.T) {
	l, err := listen(t.Context(), "tcp4", "127.0.0.1:0")
	do(t, err)
	defer func() { _ = l.Close() }()
	const neither = "cannot tell who listens there (netlink: sendto: operation not permitted; open /proc/self/net/tcp: operation not permitted)"
	for without, want := range map[string]string{
		"netlink": "connected\ncheck: <nil>\n",
		"both":    "port PORT on 127.0.0.1: " + neither + "; nothing was sent\ncheck: " + neither + "\n",
	} {
		cmd := exec.Command(os.Args[0], l.Addr().String())
		cmd.Env = append(os.Environ(), role+"="+without)
		out, err := cmd.CombinedOutput()
		port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
		if err != nil || string(out) != strings.Replace(want, "PORT", port, 1) {
			t.Errorf("without %s: %v, %s", without, err, out)
		}
	}
}

// playFilter dials under a system-call filter that takes sources away.
func playFilter(without string) {
	calls := []uint32{unix.SYS_SENDTO}
	if without == "both" {
		calls = append(calls, unix.SYS_OPENAT)
	}
	refuse(calls)
	c, err := Dialer((&net.Dialer{}).DialContext)(context.Background(), "tcp", os.Args[1])
	if err != nil {
		fmt.Println(err)
		fmt.Println("check:", Check())
		return
	}
	_ = c.Close()
	fmt.Println("connected")
	fmt.Println("check:", Check())
}

// refuse makes calls fail with EPERM on all threads (seccomp(2)).
func refuse(calls []uint32) {
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // seccomp_data.nr
	for _, nr := range calls {
		program = append(program,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	runtime.LockOSThread()
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f)))
	if errno != 0 {
		panic(errno)
	}
}

// What is not an answer is an error, and never a user: 0 is root.
func TestAnswersThatMakeNoSense(t *testing.T) {
	l, err := listen(t.Context(), "tcp4", "127.0.0.1:0")
	do(t, err)
	defer func() { _ = l.Close() }()
	good := make([]byte, answerLen)
	ourByte.PutUint16(good[4:], sockDiagByFamily)
	good[17] = stateListen
	ourByte.PutUint32(good[16+68:], 7)
	if s, state, err := answer(good); err != nil || state != stateListen || s != (Socket{0, 7}) {
		t.Errorf("%+v, %d, %v", s, state, err)
	}
	for n := range good {
		if _, _, err := answer(good[:n]); err == nil {
			t.Errorf("took %d bytes", n)
		}
	}
	ourByte.PutUint32(good[16+68:], 0)
	if _, _, err := answer(good); !errors.Is(err, errOrphan) {
		t.Errorf("a socket without an inode: %v", err)
	}
	const line = "  0: 0100007F:0FA0 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65534        0 %s 1 0000000000000000\n"
	want := func(entry) bool { return true }
	if list, err := parse(strings.NewReader("names\n"+fmt.Sprintf(line, "12")), want, nil); err != nil || len(list) != 1 || list[0] != (Socket{nobody, 12}) {
		t.Errorf("%+v, %v", list, err)
	}
	for _, text := range []string{
		fmt.Sprintf(line, "0"), fmt.Sprintf(line, "x"), "  0: 0100007F:0FA0\n", strings.Replace(line, "65534", "-1", 1),
		strings.Replace(line, "0100007F", "0100", 1), strings.Replace(line, "0FA0", "10FA0", 1), strings.Replace(line, "0A", "", 1),
	} {
		if list, err := parse(strings.NewReader("names\n"+text), want, nil); err == nil {
			t.Errorf("took %q: %+v", text, list)
		}
	}
}

func inodeOf(t *testing.T, c syscall.Conn) uint32 {
	t.Helper()
	raw, err := c.SyscallConn()
	do(t, err)
	var st unix.Stat_t
	do(t, raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }))
	do(t, err)
	return uint32(st.Ino)
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
