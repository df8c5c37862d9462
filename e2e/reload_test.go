package e2e

import (
	"syscall"

	"bloq-agent/ipc"
)

const hup = syscall.SIGHUP

func isReload(e ipc.Event) bool { return e.Event == "reloaded" }
