package profile

import (
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/refresher"
)

// An outage that lasts, then a hint.
func TestAHintReachesTheRefreshers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newRig(t, sandbox.Config{})
		s := newSet(t)
		runs, without := s.candidate("runs"), s.candidate("without")
		runs.state.Store(&state{phase: Serving, refresher: rig.r, login: rig.log, replaced: make(chan struct{})})
		s.members.Store(&members{all: []*Profile{runs, without}})
		rig.net.setRefuse(true)
		for s := rig.r.Snapshot(); time.Until(s.NextAttempt()) < time.Minute || s.Valid(); s = rig.r.Snapshot() {
			time.Sleep(10 * time.Second)
		}
		rig.net.setRefuse(false)
		s.Hint()
		synctest.Wait()
		if !rig.r.Snapshot().Hinted {
			t.Error("the hint did not arrive")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s := rig.r.Snapshot(); s.Class != refresher.None || !s.Valid() {
			t.Errorf("a second after the hint: %v, %v", s.Class, s.Err)
		}
	})
}
