package daemon

import (
	"sync"
	"time"

	"bloq-agent/ipc/server"
)

// seldomGap is the least time between two log lines of the same kind that
// somebody else can cause.
const seldomGap = time.Minute

// A seldom says how often something happened, at most once in seldomGap.
type seldom struct {
	mu    sync.Mutex
	said  time.Time
	since int    // how often since it was said
	total uint64 // since the start
}

// happened reports whether to say so now, and how often it happened since it
// was said last.
func (s *seldom) happened(now time.Time) (times int, say bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since++
	s.total++
	if !s.said.IsZero() && now.Sub(s.said) < seldomGap {
		return s.since, false
	}
	times, s.since, s.said = s.since, 0, now
	return times, true
}

func (s *seldom) count() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

func (d *Daemon) refused(p server.Peer) {
	if times, say := d.refusals.happened(time.Now()); say {
		d.log.Warn().Int("peer_pid", p.PID).Int("peer_uid", p.UID).Int("times", times).Msg("refused a peer of another user")
	}
}

func (d *Daemon) troubled(err error) {
	if times, say := d.troubles.happened(time.Now()); say {
		d.log.Warn().Err(err).Int("times", times).Msg("a connection could not be accepted; going on")
	}
}

// panicked logs where a handler panicked. Stacks hold addresses and numbers,
// no text.
func (d *Daemon) panicked(what string, stack []byte) {
	d.log.Error().Str("panic", what).Bytes("stack", stack).Msg("a request ran into a defect; it was answered `internal`")
}
