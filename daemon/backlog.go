package daemon

import (
	"bytes"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// maxBacklog is how many bytes of the log may wait for a reader.
const maxBacklog = 256 << 10

// drainTimeout bounds the wait for a reader before the process exits.
const drainTimeout = time.Second

// A backlog is a zerolog.LevelWriter that never blocks and never fails, so that a
// reader of the log cannot stop the daemon. One goroutine writes to out. The backlog
// drops a line that does not fit, and reports how many when lines are read again.
type backlog struct {
	out zerolog.LevelWriter

	mu      sync.Mutex
	wake    sync.Cond
	waiting []entry
	size    int    // bytes in waiting
	dropped uint64 // all of them after the last of waiting
	writing bool

	missing uint64 // lines that no reader got; run's
}

type entry struct {
	level zerolog.Level
	line  []byte
}

// newBacklog starts the goroutine, which ends with the process: a write that hangs
// cannot be stopped.
func newBacklog(out zerolog.LevelWriter) *backlog {
	b := &backlog{out: out}
	b.wake.L = &b.mu
	go b.run()
	return b
}

func (b *backlog) Write(p []byte) (int, error) { return b.WriteLevel(zerolog.NoLevel, p) }

// WriteLevel copies p, which is zerolog's.
func (b *backlog) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dropped > 0 || b.size+len(p) > maxBacklog { // no line overtakes a gap
		b.dropped++
	} else {
		b.waiting = append(b.waiting, entry{level, bytes.Clone(p)})
		b.size += len(p)
	}
	b.wake.Broadcast()
	return len(p), nil
}

func (b *backlog) run() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		for len(b.waiting) == 0 && b.dropped == 0 {
			b.writing = false
			b.wake.Broadcast()
			b.wake.Wait()
		}
		lines, dropped := b.waiting, b.dropped
		b.waiting, b.size, b.dropped, b.writing = nil, 0, 0, true
		b.mu.Unlock()
		for _, e := range lines {
			b.deliver(e)
		}
		b.missing += dropped
		if dropped > 0 {
			b.report()
		}
		b.mu.Lock()
	}
}

// deliver writes one line, after a report of those that are missing before it.
func (b *backlog) deliver(e entry) {
	if b.report(); b.missing > 0 {
		b.missing++
		return
	}
	if _, err := b.out.WriteLevel(e.level, e.line); err != nil {
		b.missing++
	}
}

func (b *backlog) report() {
	if b.missing == 0 {
		return
	}
	var line bytes.Buffer
	// Whatever the level: it stands for lines of that level.
	log := zerolog.New(&line).With().Timestamp().Str(zerolog.LevelFieldName, zerolog.LevelWarnValue).Logger()
	log.Log().Uint64("lines", b.missing).Msg("part of the log is missing here, because nothing read it")
	if _, err := b.out.WriteLevel(zerolog.WarnLevel, line.Bytes()); err == nil {
		b.missing = 0
	}
}

// drain waits until everything is written, but not for long: the reader may be gone.
func (b *backlog) drain() {
	ended := time.Now().Add(drainTimeout)
	timer := time.AfterFunc(drainTimeout, b.wake.Broadcast)
	defer timer.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	for (b.writing || len(b.waiting) > 0 || b.dropped > 0) && time.Now().Before(ended) {
		b.wake.Wait()
	}
}
