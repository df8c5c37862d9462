package daemon

import (
	"os"
	"testing"
	"time"
)

func openFDs(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	do(t, err)
	return len(list)
}

func TestClockWakesInOrderAndOnce(t *testing.T) {
	c, err := newClock()
	do(t, err)
	defer func() { do(t, c.Close()) }()
	start := c.Boottime()
	late, stopLate := c.After(60 * time.Millisecond)
	defer stopLate()
	soon, stopSoon := c.After(20 * time.Millisecond) // arms an earlier moment while the timer runs
	defer stopSoon()
	never, stopNever := c.After(time.Hour)
	stopNever()
	<-soon
	if d := c.Boottime() - start; d < 20*time.Millisecond {
		t.Errorf("woken after %v", d)
	}
	<-late
	if d := c.Boottime() - start; d < 60*time.Millisecond {
		t.Errorf("woken after %v", d)
	}
	for name, ch := range map[string]<-chan time.Time{"soon": soon, "late": late, "never": never} {
		select {
		case <-ch:
			t.Errorf("%s was woken again", name)
		default:
		}
	}
	now, stopNow := c.After(0)
	defer stopNow()
	<-now
}

// What a step of the wall clock does; setting it is not for a test.
func TestAStepWakesEverybody(t *testing.T) {
	c, err := newClock()
	do(t, err)
	defer func() { do(t, c.Close()) }()
	a, stopA := c.After(time.Hour)
	defer stopA()
	b, stopB := c.After(2 * time.Hour)
	defer stopB()
	c.wake(true)
	<-a
	<-b
	do(t, c.watchSteps()) // it can be armed again
}

func TestAClosedClockLeavesNothing(t *testing.T) {
	before := openFDs(t)
	for range 50 {
		c, err := newClock()
		do(t, err)
		_, stop := c.After(time.Hour)
		do(t, c.Close()) // waits for both goroutines
		stop()
	}
	if after := openFDs(t); after > before+2 {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
