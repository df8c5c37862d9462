package client

import "syscall"

// serverUID is the user who made the listening socket (SO_PEERCRED, unix(7)).
func serverUID(fd int) (int, error) {
	cred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}
