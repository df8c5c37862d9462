package daemon

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"bloq-agent/refresher"

	"golang.org/x/sys/unix"
)

// A bootClock is the refreshers' clock, with two timerfds for all of them
// (timerfd_create(2)) and no ticks: one of CLOCK_BOOTTIME for the next moment
// that somebody waits for, since Go's own timers stand still while a laptop
// sleeps; and one of CLOCK_REALTIME that never fires but is cancelled when the
// wall clock is set, or the machine wakes up, which makes everybody look again.
type bootClock struct {
	boot, steps *os.File
	done        sync.WaitGroup

	// stepped waits for a step of the wall clock; tests replace it, since setting
	// the clock is not for them. Its error is that of a closed clock.
	stepped func() error

	mu      sync.Mutex
	waiters map[*waiter]struct{}
}

type waiter struct {
	at time.Duration // by Boottime
	c  chan time.Time
}

// newClock starts two goroutines, which end with Close.
func newClock() (*bootClock, error) { return startClock(func(*bootClock) {}) }

func startClock(change func(*bootClock)) (*bootClock, error) {
	boot, err := newTimerfd(unix.CLOCK_BOOTTIME)
	if err != nil {
		return nil, err
	}
	steps, err := newTimerfd(unix.CLOCK_REALTIME)
	if err != nil {
		return nil, errors.Join(err, boot.Close())
	}
	c := &bootClock{boot: boot, steps: steps, waiters: map[*waiter]struct{}{}}
	c.stepped = c.readSteps
	change(c)
	if err := c.watchSteps(); err != nil {
		return nil, errors.Join(err, boot.Close(), steps.Close())
	}
	c.done.Go(c.runBoot)
	c.done.Go(c.runSteps)
	return c, nil
}

func newTimerfd(clock int) (*os.File, error) {
	// Nonblocking, so that Go's poller waits for it and Close ends a Read.
	fd, err := unix.TimerfdCreate(clock, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	return os.NewFile(uintptr(fd), "timerfd"), nil
}

func settime(f *os.File, flags int, at unix.Timespec) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.TimerfdSettime(int(fd), flags, &unix.ItimerSpec{Value: at}, nil)
	})
	return errors.Join(err, setErr)
}

// Close ends the clock: nobody is woken any more.
func (c *bootClock) Close() error {
	err := errors.Join(c.boot.Close(), c.steps.Close())
	c.done.Wait()
	return err
}

// Now is the wall clock.
func (c *bootClock) Now() time.Time { return time.Now() }

// Boottime goes on while the machine sleeps.
func (c *bootClock) Boottime() time.Duration {
	var t unix.Timespec
	// It fails only for a clock that the kernel does not have.
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// monotonic is CLOCK_MONOTONIC, which stands still while the machine sleeps.
func monotonic() time.Duration {
	var t unix.Timespec
	// As above.
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// After is of refresher.Clock.
func (c *bootClock) After(d time.Duration) (<-chan time.Time, func()) {
	w := &waiter{at: c.Boottime() + d, c: make(chan time.Time, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters[w] = struct{}{}
	c.arm()
	return w.c, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiters, w)
	}
}

// arm sets the timer to the earliest waiter. The caller holds c.mu. A timer
// that is armed for somebody who has gone fires once for nothing.
func (c *bootClock) arm() {
	var first *waiter
	for w := range c.waiters {
		if first == nil || w.at < first.at {
			first = w
		}
	}
	if first == nil {
		return
	}
	// A zero time would disarm it. The error is that of a closed clock.
	_ = settime(c.boot, unix.TFD_TIMER_ABSTIME, unix.NsecToTimespec(max(1, int64(first.at))))
}

// wake sends to those who are due, or to all.
func (c *bootClock) wake(all bool) {
	now := c.Boottime()
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.waiters {
		if all || w.at <= now {
			w.c <- c.Now() // never blocks: it is sent to once
			delete(c.waiters, w)
		}
	}
	c.arm()
}

func (c *bootClock) runBoot() {
	var count [8]byte
	for {
		if _, err := c.boot.Read(count[:]); err != nil {
			return // closed
		}
		if binary.NativeEndian.Uint64(count[:]) > 0 {
			c.wake(false)
		}
	}
}

// watchSteps arms a timer for a day that does not come: it is there to be
// cancelled (TFD_TIMER_CANCEL_ON_SET).
func (c *bootClock) watchSteps() error {
	far := unix.NsecToTimespec(time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	err := settime(c.steps, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, far)
	if errors.Is(err, syscall.ECANCELED) {
		return nil // set once more in the meantime: it is armed all the same
	}
	return err
}

// readSteps returns when the wall clock has been set.
func (c *bootClock) readSteps() error {
	var count [8]byte
	_, err := c.steps.Read(count[:])
	if errors.Is(err, syscall.ECANCELED) {
		return nil
	}
	return err
}

func (c *bootClock) runSteps() {
	for c.stepped() == nil && c.watchSteps() == nil {
		c.wake(true)
	}
}

var _ refresher.Clock = (*bootClock)(nil)
