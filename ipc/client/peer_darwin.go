package client

import "bloq-agent/ipc"

// serverUID is the user who made the listening socket.
func serverUID(fd int) (int, error) { return ipc.PeerUID(fd) }
