package daemon

import (
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/refresher"
	"bloq-agent/store"

	"github.com/rs/zerolog"
)

// An outage that lasts, then a hint.
func TestAHintReachesTheRefreshers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newRig(t, sandbox.Config{})
		d := &Daemon{log: zerolog.Nop(), profiles: map[string]*profile{"runs": {}, "has no login": {}}}
		d.profiles["runs"].set(&state{refresher: rig.r})
		d.profiles["has no login"].set(&state{})
		rig.net.setRefuse(true)
		for s := rig.r.Snapshot(); time.Until(s.NextAttempt()) < time.Minute || s.Valid(); s = rig.r.Snapshot() {
			time.Sleep(10 * time.Second)
		}
		rig.net.setRefuse(false)
		before := rig.r.Snapshot()
		d.hint()
		synctest.Wait()
		hinted := rig.r.Snapshot()
		time.Sleep(time.Second)
		synctest.Wait()
		if s := rig.r.Snapshot(); s.Class != refresher.None || !s.Valid() {
			t.Errorf("a second after the hint: %v, %v", s.Class, s.Err)
		}
		// It is told, but not as an exchange or a save.
		records, err := store.OpenProfiles(t.TempDir())
		do(t, err)
		d.records = records
		d.config.Store(&configState{})
		d.hub.init()
		events := d.hub.subscribe()
		d.observe(d.profiles["runs"], &state{refresher: rig.r, login: rig.log}, before, hinted)
		if e := <-events; e.Event != "status" {
			t.Errorf("event %q of a hint", e.Event)
		}
	})
}
