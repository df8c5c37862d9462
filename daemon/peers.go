package daemon

import (
	"sync/atomic"
	"time"

	"bloq-agent/ipc/server"
)

// A seldom counts what others can cause, and has it logged once a minute at most.
type seldom struct {
	atomic.Uint64
	logged atomic.Int64
}

// happened reports whether to log it at now, the machine's uptime.
func (s *seldom) happened(now time.Duration) bool {
	s.Add(1)
	last := s.logged.Load()
	return (last == 0 || int64(now)-last >= int64(time.Minute)) && s.logged.CompareAndSwap(last, int64(now))
}

func (n narrator) refused(p server.Peer) {
	if n.told.refusals.happened(n.outside.Clock.Boottime()) {
		n.log.Warn().Int("peer_pid", p.PID).Int("peer_uid", p.UID).Uint64("times", n.told.refusals.Load()).Msg("refused a peer of another user")
	}
}

func (n narrator) troubled(err error) {
	if n.told.troubles.happened(n.outside.Clock.Boottime()) {
		n.log.Warn().Err(err).Uint64("times", n.told.troubles.Load()).Msg("a connection could not be accepted; going on")
	}
}

// panicked logs where a handler panicked. Stacks hold addresses and numbers,
// no text.
func (n narrator) panicked(what string, stack []byte) {
	n.log.Error().Str("panic", what).Bytes("stack", stack).Msg("a request ran into a defect; it was answered `internal`")
}
