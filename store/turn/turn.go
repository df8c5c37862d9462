// Package turn has locks for what takes its time: a disk, a keyring, an endpoint.
//
// It promises what sync.Mutex and a semaphore do, and that those who wait are served
// in the order in which they came. Each waits by a channel of its own, so that a
// bubble of virtual time (testing/synctest) goes on while somebody waits for a slow
// disk.
package turn

import "sync"

// A Mutex is held by one goroutine at a time. The zero value is free.
type Mutex struct {
	mu      sync.Mutex
	held    bool
	waiting []chan struct{}
}

// Lock waits for its turn.
func (m *Mutex) Lock() {
	m.mu.Lock()
	if !m.held {
		m.held = true
		m.mu.Unlock()
		return
	}
	mine := make(chan struct{})
	m.waiting = append(m.waiting, mine)
	m.mu.Unlock()
	<-mine
}

// Unlock hands the lock to whoever has waited for the longest.
func (m *Mutex) Unlock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case !m.held:
		panic("turn: unlock of a Mutex that is free")
	case len(m.waiting) == 0:
		m.held = false
	default:
		close(m.waiting[0])
		m.waiting = m.waiting[1:]
	}
}

// Slots let a number of goroutines in at a time. Their zero value lets none in.
type Slots struct {
	mu      sync.Mutex
	free    int
	waiting []chan struct{}
}

// NewSlots returns n free slots.
func NewSlots(n int) *Slots { return &Slots{free: n} }

// Enter waits for a slot.
func (s *Slots) Enter() {
	s.mu.Lock()
	if s.free > 0 {
		s.free--
		s.mu.Unlock()
		return
	}
	mine := make(chan struct{})
	s.waiting = append(s.waiting, mine)
	s.mu.Unlock()
	<-mine
}

// Leave hands the slot to whoever has waited for the longest.
func (s *Slots) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		s.free++
		return
	}
	close(s.waiting[0])
	s.waiting = s.waiting[1:]
}
