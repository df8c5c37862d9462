package systemd

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// barrierTimeout bounds a wait for systemd, which answers in a millisecond. A
// stop must not hang on a manager that does not.
const barrierTimeout = 2 * time.Second

// A notifyStore passes descriptors to $NOTIFY_SOCKET. go-systemd cannot.
type notifyStore struct{ socket string }

// newDescriptorStore returns nil if systemd did not start the daemon.
func newDescriptorStore() descriptorStore {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	return &notifyStore{socket}
}

func (n *notifyStore) put(name string, data []byte) error {
	fd, err := sealedFile(data)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := n.send("FDSTORE=1\nFDNAME="+name, fd); err != nil {
		return err
	}
	return n.barrier()
}

func (n *notifyStore) remove(name string) error {
	if err := n.send("FDSTOREREMOVE=1\nFDNAME="+name, -1); err != nil {
		return err
	}
	return n.barrier()
}

// sealedFile returns a memory file with data that can no longer be changed
// (memfd_create(2)).
func sealedFile(data []byte) (int, error) {
	fd, err := unix.MemfdCreate("bloq-agent-tokens", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("memfd: %w", err)
	}
	n, err := unix.Pwrite(fd, data, 0)
	if err == nil && n != len(data) {
		err = errors.New("short write")
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("memfd: %w", err)
	}
	return fd, nil
}

// send passes one datagram, with a descriptor unless fd is negative. It does not
// use net.UnixConn, which refuses control data on a connected socket.
func (n *notifyStore) send(state string, fd int) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	tv := unix.NsecToTimeval(int64(barrierTimeout))
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return err
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	err = unix.Sendmsg(s, []byte(state), rights, &unix.SockaddrUnix{Name: n.socket}, unix.MSG_NOSIGNAL)
	if err != nil {
		return fmt.Errorf("%s: %w", n.socket, err)
	}
	return nil
}

// barrier returns when systemd has dealt with everything that was sent before:
// then it closes the end of the pipe that it was given (sd_notify_barrier(3)).
func (n *notifyStore) barrier() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer func() { _ = unix.Close(p[0]) }()
	err := n.send("BARRIER=1", p[1])
	_ = unix.Close(p[1])
	if err != nil {
		return err
	}
	for {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(p[0]), Events: 0}}, int(barrierTimeout.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case ready == 0:
			return errors.New("systemd does not take tokens")
		default:
			return nil
		}
	}
}

// monotonic is CLOCK_MONOTONIC.
func monotonic() time.Duration {
	var t unix.Timespec
	// It fails only for a clock that the kernel does not have.
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}
