package wake

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openFDs(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	do(t, err)
	return len(list)
}

func TestClockWakesInOrderAndOnce(t *testing.T) {
	c, err := NewClock()
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

// What the kernel says of a timer (proc(5), fdinfo).
func timerInfo(t *testing.T, f *os.File) map[string]string {
	t.Helper()
	raw, err := f.SyscallConn()
	do(t, err)
	info := map[string]string{}
	do(t, raw.Control(func(fd uintptr) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
		do(t, err)
		for l := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(l), ":")
			info[key] = strings.TrimSpace(value)
		}
	}))
	return info
}

// The kernel is asked what is armed: CLOCK_BOOTTIME for the waiting, which goes
// on during suspend; CLOCK_REALTIME, to be cancelled when it is set, for a day
// that does not come.
func TestTheTimersAreTheRightOnes(t *testing.T) {
	c, err := NewClock()
	do(t, err)
	defer func() { do(t, c.Close()) }()
	_, stop := c.After(time.Hour)
	defer stop()
	boot, steps := timerInfo(t, c.boot), timerInfo(t, c.steps)
	if boot["clockid"] != strconv.Itoa(unix.CLOCK_BOOTTIME) {
		t.Errorf("waits by clock %s", boot["clockid"])
	}
	flags, err := strconv.ParseInt(steps["settime flags"], 8, 0)
	do(t, err)
	if steps["clockid"] != strconv.Itoa(unix.CLOCK_REALTIME) || flags&unix.TFD_TIMER_CANCEL_ON_SET == 0 || flags&unix.TFD_TIMER_ABSTIME == 0 {
		t.Errorf("watches for steps by %v", steps)
	}
	var at int64
	_, err = fmt.Sscanf(steps["it_value"], "(%d,", &at)
	do(t, err)
	if at < int64((100 * 365 * 24 * time.Hour).Seconds()) {
		t.Errorf("the day that does not come is %d s away", at)
	}
	// By the kernel's own reading of the clock that goes on during suspend.
	var now unix.Timespec
	do(t, unix.ClockGettime(unix.CLOCK_BOOTTIME, &now))
	if d := time.Duration(now.Nano()) - c.Boottime(); d > time.Second || d < -time.Second {
		t.Errorf("Boottime is %v off", d)
	}
}

// A step wakes everybody, each time, and the watcher is armed again.
func TestAStepWakesEverybody(t *testing.T) {
	steps := make(chan error)
	c, err := startClock(func(c *Clock) { c.stepped = func() error { return <-steps } })
	do(t, err)
	for range 3 {
		do(t, settime(c.steps, 0, unix.Timespec{})) // disarmed, as far as the kernel can tell
		a, stopA := c.After(time.Hour)
		b, stopB := c.After(2 * time.Hour)
		steps <- nil
		<-a
		<-b
		stopA()
		stopB()
		if got := timerInfo(t, c.steps)["it_value"]; strings.HasPrefix(got, "(0,") {
			t.Errorf("the watcher is not armed again: %s", got)
		}
	}
	steps <- os.ErrClosed
	do(t, c.Close())
}

func TestAClosedClockLeavesNothing(t *testing.T) {
	before := openFDs(t)
	for range 50 {
		c, err := NewClock()
		do(t, err)
		_, stop := c.After(time.Hour)
		do(t, c.Close()) // waits for both goroutines
		stop()
	}
	if after := openFDs(t); after > before+2 {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
