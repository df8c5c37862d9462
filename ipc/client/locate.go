package client

import (
	"os"
	"strconv"

	"bloq-agent/ipc"
)

// Locate decides which socket to ask: ipc.SocketPath's, or the system unit's
// if nobody named one, the first is not there and the second is.
func Locate(flag string) (string, error) {
	path, err := ipc.SocketPath(flag, os.Getenv, strconv.Itoa(os.Getuid()))
	if err != nil || flag != "" || os.Getenv("BLOQ_AGENT_SOCK") != "" || exists(path) {
		return path, err
	}
	if system := ipc.SystemSocketPath(os.Getenv("USER")); exists(system) {
		return system, nil
	}
	return path, nil
}

// StartHint is the command that starts a daemon on this machine: systemd's,
// where it runs and the unit is installed, unless flag names a socket.
func StartHint(flag string) string {
	if flag != "" {
		return "bloq-agent serve --socket " + ipc.ShellWord(flag)
	}
	if !exists("/run/systemd/system") {
		return "bloq-agent serve"
	}
	home := os.Getenv("HOME")
	for _, dir := range []string{
		"/etc/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user",
		home + "/.config/systemd/user", home + "/.local/share/systemd/user",
	} {
		if exists(dir + "/bloq-agent.socket") {
			// enable --now does nothing for a socket that has lost its file.
			const wanted = "/systemd/user/sockets.target.wants/bloq-agent.socket"
			if exists(home+"/.config"+wanted) || exists("/etc"+wanted) {
				return "systemctl --user restart bloq-agent.socket"
			}
			return "systemctl --user enable --now bloq-agent.socket"
		}
	}
	return "bloq-agent serve"
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
