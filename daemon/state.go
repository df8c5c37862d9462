package daemon

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"bloq-agent/daemon/profile"
	"bloq-agent/ipc"
	"bloq-agent/store"
	"bloq-agent/store/trusted"
	"bloq-agent/store/turn"
)

// openGap is how long after an attempt in vain to read the state directory a
// request starts no other.
const openGap = time.Second

// A state holds the profiles, or the reason why they cannot be read. That reason
// is an answer, never an exit (invariant 6 of package profile): a daemon that
// exits while a caller waits is started again at once, for ever.
type state struct {
	open   func() (*profile.Set, error)
	failed func(error) // is told of each new reason
	set    atomic.Pointer[profile.Set]
	look   store.Glance // a request's attempt to open

	mu     turn.Mutex // held by one attempt to open at a time
	err    error
	tried  time.Time
	ready  bool // the secrets may be read
	closed bool
}

// first opens the state. Only another daemon in the same directory is an error.
func (s *state) first() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.try()
	if errors.Is(s.err, store.ErrInUse) {
		return s.err
	}
	return nil
}

// try opens the state. The caller holds s.mu.
func (s *state) try() {
	set, err := s.open()
	if err != nil && !errors.Is(err, store.ErrInUse) && (s.err == nil || s.err.Error() != err.Error()) {
		s.failed(err)
	}
	s.err, s.tried = err, time.Now()
	if err != nil {
		return
	}
	s.set.Store(set) // before Start, whose events look at it
	if s.ready {
		set.Start()
	}
}

// get returns the profiles, or why there are none.
func (s *state) get() (*profile.Set, *ipc.Problem) {
	if set := s.set.Load(); set != nil {
		return set, nil
	}
	err := s.look.Look(func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.set.Load() == nil && !s.closed && time.Since(s.tried) >= openGap {
			s.try()
		}
		return s.err
	})
	if set := s.set.Load(); set != nil {
		return set, nil
	}
	return nil, stateProblem(err)
}

func stateProblem(err error) *ipc.Problem {
	if errors.Is(err, store.ErrNoAnswer) {
		return &ipc.Problem{Code: ipc.CodeUnavailable, Detail: "the profiles cannot be read: " + err.Error()}
	}
	hint := trusted.Mend(err)
	var moved *store.MovedError
	if errors.As(err, &moved) {
		hint = restartCommand(os.Getenv, os.Getpid())
	}
	return &ipc.Problem{Code: ipc.CodeConfiguration, Detail: "the profiles cannot be read: " + err.Error(), Hint: hint}
}

// start reads the secrets, if the configuration says where they may be sent.
func (s *state) start(ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = ready
	if set := s.set.Load(); set != nil && ready {
		set.Start()
	}
}

// allow has a later try read the secrets too.
func (s *state) allow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = true
}

func (s *state) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	if set := s.set.Load(); set != nil {
		set.Close()
	}
}

// openState reads the state directory. The profiles get the tokens that the daemon
// before kept.
func (d *Daemon) openState(kept []profile.Kept) (*profile.Set, error) {
	records, err := store.OpenProfiles(d.options.StateDir)
	if err != nil {
		return nil, err
	}
	if d.cannotKeep() {
		return nil, errors.Join(&store.MovedError{Path: d.options.StateDir}, records.Close())
	}
	if note := records.Note(); note != "" {
		d.log.Warn().Msg(note)
	}
	return profile.Open(records, d.settings(), d.options.Stores, kept, d.outside.Clock, narrator{d}.heardOf), nil
}
