package wake

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

// A Clock is one clock for all refreshers. It has two timerfds
// (timerfd_create(2)) and no ticks. The one of CLOCK_BOOTTIME fires at the next
// moment that a waiter is due, because Go's own timers stand still while the
// machine sleeps. The one of CLOCK_REALTIME never fires: the kernel cancels it
// when the wall clock is set, and then every waiter is woken.
type Clock struct {
	boot, steps *os.File
	done        sync.WaitGroup

	// stepped waits for a step of the wall clock. Tests replace it, because they
	// must not set the machine's clock. It fails if the clock was closed.
	stepped func() error

	mu      sync.Mutex
	waiters map[*waiter]struct{}
}

type waiter struct {
	at time.Duration // by Boottime
	c  chan time.Time
}

// NewClock starts two goroutines. Close ends them.
func NewClock() (*Clock, error) { return startClock(func(*Clock) {}) }

func startClock(change func(*Clock)) (*Clock, error) {
	boot, err := newTimerfd(unix.CLOCK_BOOTTIME)
	if err != nil {
		return nil, err
	}
	steps, err := newTimerfd(unix.CLOCK_REALTIME)
	if err != nil {
		return nil, errors.Join(err, boot.Close())
	}
	c := &Clock{boot: boot, steps: steps, waiters: map[*waiter]struct{}{}}
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

// Close ends the clock. It wakes no waiter from then on.
func (c *Clock) Close() error {
	err := errors.Join(c.boot.Close(), c.steps.Close())
	c.done.Wait()
	return err
}

// Now is the wall clock.
func (c *Clock) Now() time.Time { return time.Now() }

// Boottime is CLOCK_BOOTTIME, which counts while the machine sleeps.
func (c *Clock) Boottime() time.Duration {
	var t unix.Timespec
	// It fails only for a clock that the kernel does not have.
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// After sends once when Boottime has grown by d, or at a step of the wall clock.
// Call stop to release the waiter.
func (c *Clock) After(d time.Duration) (<-chan time.Time, func()) {
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

// arm sets the timer to the earliest waiter. The caller holds c.mu. The timer
// may fire once for a waiter that was stopped, which does no harm.
func (c *Clock) arm() {
	var first *waiter
	for w := range c.waiters {
		if first == nil || w.at < first.at {
			first = w
		}
	}
	if first == nil {
		return
	}
	// A zero time would disarm the timer. It fails only if the clock was closed.
	_ = settime(c.boot, unix.TFD_TIMER_ABSTIME, unix.NsecToTimespec(max(1, int64(first.at))))
}

// wake sends to the waiters that are due, or to all of them.
func (c *Clock) wake(all bool) {
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

func (c *Clock) runBoot() {
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

// watchSteps arms the timer that the kernel cancels at a step of the wall clock
// (TFD_TIMER_CANCEL_ON_SET). Its moment is too far away ever to come.
func (c *Clock) watchSteps() error {
	far := unix.NsecToTimespec(time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	err := settime(c.steps, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, far)
	if errors.Is(err, syscall.ECANCELED) {
		return nil // the clock was set again meanwhile; the timer is armed all the same
	}
	return err
}

// readSteps returns when the wall clock has been set.
func (c *Clock) readSteps() error {
	var count [8]byte
	_, err := c.steps.Read(count[:])
	if errors.Is(err, syscall.ECANCELED) {
		return nil
	}
	return err
}

func (c *Clock) runSteps() {
	for c.stepped() == nil && c.watchSteps() == nil {
		c.wake(true)
	}
}

var _ refresher.Clock = (*Clock)(nil)
