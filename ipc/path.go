package ipc

import "errors"

// ErrPathTooLong is returned for a socket path that the kernel cannot hold.
var ErrPathTooLong = errors.New("socket path is longer than 107 bytes")

// SocketPath decides where the daemon's socket is (PROTOCOL.md section 1):
// the flag, else $BLOQ_AGENT_SOCK, else $XDG_RUNTIME_DIR, else /run/user/UID.
// getenv is os.Getenv; uid is the caller's, in decimal.
func SocketPath(flag string, getenv func(string) string, uid string) (string, error) {
	path := flag
	if path == "" {
		path = getenv("BLOQ_AGENT_SOCK")
	}
	if path == "" {
		// A shell started by `ssh host command` may lack the variable although
		// the directory is there.
		dir := getenv("XDG_RUNTIME_DIR")
		if dir == "" {
			dir = "/run/user/" + uid
		}
		path = dir + "/bloq-agent/agent.sock"
	}
	if len(path) > MaxPath {
		return path, ErrPathTooLong
	}
	return path, nil
}

// SystemSocketPath is where the system unit of a headless server puts the
// socket. Clients try it when nothing else was named and SocketPath's answer
// does not exist.
func SystemSocketPath(user string) string {
	return "/run/bloq-agent/" + user + "/agent.sock"
}

// ValidProfile reports whether name can be a profile's: it becomes part of
// file names and keyring items, so it matches [a-z0-9][a-z0-9_-]{0,31}.
func ValidProfile(name string) bool {
	if len(name) == 0 || len(name) > 32 || name[0] == '_' || name[0] == '-' {
		return false
	}
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
