package server

import "syscall"

// socketPeer reads SO_PEERCRED (unix(7)).
func socketPeer(fd int) (Peer, error) {
	cred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return Peer{UID: -1}, err
	}
	return Peer{PID: int(cred.Pid), UID: int(cred.Uid)}, nil
}
