//go:build linux

package sim

import "time"

// verbs are the steps. Each runs in a goroutine of its own, and holds world.model.
var verbs map[string]func(*world, step)

func init() { // not in the declaration: stepCalm leads back to verbs
	verbs = map[string]func(*world, step){
		"login": stepLogin, "logout": stepLogout, "move": stepMove, "lock": stepLock, "unlock": stepUnlock, "refresh": stepRefresh,
		"ask": stepAsk, "git": stepGit, "rejected": stepRejected, "status": stepStatus, "reload": stepReload, "hint": stepHint,
		"start": stepStart, "kill": stepKill, "stop": stepStop, "power": stepPower, "second": stepSecond,
		"pass": stepPass, "suspend": stepSuspend, "clock": stepClock,
		"disk": stepDisk, "keyring": stepKeyring, "net": stepNet, "fault": stepFault, "revoke": stepRevoke,
		"replace": stepReplace, "backup": stepBackup, "restore": stepRestore, "copy": stepCopy, "putback": stepPutBack, "version": stepVersion,
		"calm": stepCalm,
	}
}

func stepPass(w *world, s step) { w.sleep(s.span("for", time.Minute)) }
