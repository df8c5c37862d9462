// Package turn has locks for what takes its time: a disk, a keyring, an endpoint.
//
// It promises what sync.Mutex and a semaphore do, and that those who wait are served
// in the order in which they came. Each waits by a channel of its own, so that a
// bubble of virtual time (testing/synctest) goes on while somebody waits for a slow
// disk.
package turn

import "sync"

// A Mutex is held by one goroutine at a time. The zero value is free.
type Mutex struct{ queue queue }

// Lock waits for its turn.
func (m *Mutex) Lock() { m.queue.enter(1) }

// Unlock gives the lock to the goroutine that has waited longest.
func (m *Mutex) Unlock() { m.queue.leave() }

// Slots let a number of goroutines in at a time.
type Slots struct {
	limit int
	queue queue
}

// NewSlots returns n free slots.
func NewSlots(n int) *Slots { return &Slots{limit: n} }

// Enter waits for a slot.
func (s *Slots) Enter() { s.queue.enter(s.limit) }

// Leave gives the slot to the goroutine that has waited longest.
func (s *Slots) Leave() { s.queue.leave() }

// A queue counts the goroutines that are inside, and holds those that wait, in order.
type queue struct {
	mu      sync.Mutex
	inside  int
	waiting []chan struct{} // each is closed when its goroutine may enter
}

func (q *queue) enter(limit int) {
	q.mu.Lock()
	if q.inside < limit {
		q.inside++
		q.mu.Unlock()
		return
	}
	mine := make(chan struct{})
	q.waiting = append(q.waiting, mine)
	q.mu.Unlock()
	<-mine
}

func (q *queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.inside == 0:
		panic("turn: leave without enter")
	case len(q.waiting) == 0:
		q.inside--
	default:
		close(q.waiting[0])
		q.waiting = q.waiting[1:]
	}
}
