package loopback

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"syscall"
)

// States of a socket in include/net/tcp_states.h.
const (
	stateEstablished = 1
	stateListen      = 10
)

// Of linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h; see sock_diag(7).
const (
	sockDiagByFamily = 20
	requestLen       = syscall.NLMSG_HDRLEN + 8 + 48
	answerLen        = syscall.NLMSG_HDRLEN + 4 + 48 + 20
	loopbackIndex    = 1 // of lo, in every network namespace
)

var (
	errAnswer  = errors.New("an answer that makes no sense")
	errOrphan  = errors.New("a socket that belongs to no program")
	ourByte    = binary.NativeEndian
	theNetwork = binary.BigEndian
)

// diagnose asks the kernel for the socket at local that a segment from remote
// would be delivered to. The kernel answers before sendto(2) returns.
func diagnose(local, remote netip.AddrPort) (s Socket, state uint8, err error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_INET_DIAG)
	if err != nil {
		return s, 0, os.NewSyscallError("socket", err)
	}
	defer func() { _ = syscall.Close(fd) }()
	if err := syscall.Sendto(fd, request(local, remote), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return s, 0, os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 4096)
	n, from, err := syscall.Recvfrom(fd, buf, syscall.MSG_DONTWAIT)
	if err != nil {
		return s, 0, os.NewSyscallError("recvfrom", err)
	}
	if kernel, ok := from.(*syscall.SockaddrNetlink); !ok || kernel.Pid != 0 {
		return s, 0, errAnswer
	}
	return answer(buf[:n])
}

// request is a struct nlmsghdr and a struct inet_diag_req_v2.
func request(local, remote netip.AddrPort) []byte {
	b := make([]byte, 0, requestLen)
	b = ourByte.AppendUint32(b, requestLen)
	b = ourByte.AppendUint16(b, sockDiagByFamily)
	b = ourByte.AppendUint16(b, syscall.NLM_F_REQUEST)
	b = ourByte.AppendUint32(b, 0) // sequence
	b = ourByte.AppendUint32(b, 0) // port
	family := byte(syscall.AF_INET6)
	if local.Addr().Is4() {
		family = syscall.AF_INET
	}
	b = append(b, family, syscall.IPPROTO_TCP, 0, 0)
	b = ourByte.AppendUint32(b, 0) // states: not looked at
	b = theNetwork.AppendUint16(b, local.Port())
	b = theNetwork.AppendUint16(b, remote.Port())
	b = appendAddr(b, local.Addr())
	b = appendAddr(b, remote.Addr())
	b = ourByte.AppendUint32(b, loopbackIndex)
	return append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) // no cookie
}

func appendAddr(b []byte, a netip.Addr) []byte {
	var field [16]byte
	copy(field[:], a.AsSlice())
	return append(b, field[:]...)
}

// answer reads a struct nlmsghdr and a struct inet_diag_msg, or an error.
func answer(b []byte) (s Socket, state uint8, err error) {
	if len(b) < syscall.NLMSG_HDRLEN+4 {
		return s, 0, errAnswer
	}
	kind, body := ourByte.Uint16(b[4:]), b[syscall.NLMSG_HDRLEN:]
	if kind == syscall.NLMSG_ERROR {
		return s, 0, syscall.Errno(-int32(ourByte.Uint32(body)))
	}
	if kind != sockDiagByFamily || len(b) < answerLen {
		return s, 0, errAnswer
	}
	s = Socket{UID: ourByte.Uint32(body[64:]), Inode: ourByte.Uint32(body[68:])}
	if s.Inode == 0 { // then the user is a default, and that is root
		return s, 0, errOrphan
	}
	return s, body[1], nil
}
