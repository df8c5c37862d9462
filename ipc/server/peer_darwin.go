package server

import "bloq-agent/ipc"

func socketPeer(fd int) (Peer, error) {
	uid, err := ipc.PeerUID(fd)
	if err != nil {
		return Peer{UID: -1}, err
	}
	pid, err := ipc.PeerPID(fd)
	if err != nil {
		pid = 0 // it is for the log only
	}
	return Peer{PID: pid, UID: uid}, nil
}
