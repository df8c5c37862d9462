package ipc

import (
	"syscall"
	"unsafe"
)

// From sys/un.h, which package syscall leaves out.
const (
	solLocal      = 0
	localPeerCred = 1
	localPeerPID  = 2
	xucredVersion = 0
)

// xucred is struct xucred of sys/ucred.h.
type xucred struct {
	version uint32
	uid     uint32
	ngroups int16
	_       [2]byte
	groups  [16]uint32
}

// PeerUID is the user at the other end of the socket fd (LOCAL_PEERCRED,
// unix(4)): who connected, or who listens. Both ends need it, and neither links
// golang.org/x/sys, which has it.
func PeerUID(fd int) (int, error) {
	var x xucred
	size := uint32(unsafe.Sizeof(x))
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), solLocal, localPeerCred,
		uintptr(unsafe.Pointer(&x)), uintptr(unsafe.Pointer(&size)), 0)
	switch {
	case errno != 0:
		return -1, errno
	case x.version != xucredVersion || uintptr(size) != unsafe.Sizeof(x):
		return -1, syscall.EINVAL
	}
	return int(x.uid), nil
}

// PeerPID is the process at the other end, for the log.
func PeerPID(fd int) (int, error) { return syscall.GetsockoptInt(fd, solLocal, localPeerPID) }
