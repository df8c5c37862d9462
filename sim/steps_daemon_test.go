//go:build linux

package sim

import (
	"errors"
	"time"

	"bloq-agent/store"
)

// stepStart does nothing while a daemon runs.
func stepStart(w *world, _ step) {
	if i := w.current; i != nil && !i.dead() {
		select {
		case <-i.ended:
		default:
			return
		}
	}
	i, err := w.startDaemon()
	if err != nil {
		w.note("the daemon does not start: %v", err)
		if !errors.Is(err, store.ErrInUse) {
			w.violated("the daemon starts", "%v", err)
		}
		return
	}
	if w.current != nil && !w.current.dead() { // another start was quicker
		i.kill()
		return
	}
	w.current = i
	w.trouble.set("moved", false)
	w.outside(func() {
		select {
		case <-i.serving:
			w.note("daemon %d answers", i.number)
		case <-i.killed:
		case <-time.After(time.Minute):
			w.violated("the daemon starts", "it does not answer after a minute")
		}
	})
}

// stepSecond starts a daemon beside the one that runs. The second must refuse.
func stepSecond(w *world, _ step) {
	if w.running() == nil {
		return
	}
	before := w.current
	i, err := w.startDaemon()
	if err == nil {
		if !before.dead() && before.moved.IsZero() && !before.stopping() && !w.trouble.since(epoch) && w.ownProfiles == nil {
			w.violated("one daemon has the state directory", "two run")
		}
		i.kill()
		return
	}
	w.note("a second daemon: %v", err)
}

func stepKill(w *world, _ step) {
	if i := w.current; i != nil && !i.dead() {
		w.note("daemon %d is killed", i.number)
		i.kill()
		w.checkAfterEnd(i, "killed")
	}
}

func stepStop(w *world, _ step) {
	i := w.current
	if i == nil || i.dead() {
		return
	}
	i.end()
	how := "stopped"
	w.outside(func() {
		select {
		case <-i.ended:
			w.note("daemon %d has stopped", i.number)
		case <-i.killed:
		case <-time.After(90 * time.Second): // TimeoutStopSec= of the unit; then comes SIGKILL
			w.note("daemon %d did not stop", i.number)
			how = "killed"
		}
	})
	if !i.dead() {
		i.kill()
		w.checkAfterEnd(i, how)
	}
}

// stepPower is a power loss, and the machine's next boot.
func stepPower(w *world, _ step) {
	i := w.current
	running := i != nil && !i.dead()
	if running {
		i.kill()
	}
	w.note("the power fails")
	draw := func(key string) func(int) int {
		n := 0
		return func(most int) int {
			n++
			return int(hashOf(w.seed, "crash", key, len(w.instances), n) % uint64(max(1, most)))
		}
	}
	w.volume.crash(draw("disk"))
	w.keyring.crash()
	w.clocks.reboot()
	if running {
		w.checkAfterEnd(i, "without power")
	}
}

// stepReload is SIGHUP, or a change of the configuration file.
func stepReload(w *world, s step) {
	i := w.running()
	if i == nil {
		return
	}
	if s.has("signal") {
		select {
		case i.reload <- nil:
		default:
		}
		return
	}
	select {
	case i.changed <- struct{}{}:
	default:
	}
}

// stepHint is the news that the machine woke up, or that its network changed.
func stepHint(w *world, _ step) {
	if i := w.running(); i != nil {
		if wake := i.wake.Load(); wake != nil {
			w.outside(*wake)
		}
	}
}
