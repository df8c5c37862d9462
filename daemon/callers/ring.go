// Package callers remembers the last 256 requests: which program asked for
// what, on whose behalf, and the answer in a word.
//
// It promises that a request never waits for /proc: one goroutine reads it, for
// at most 20 callers a second, and no lock is held meanwhile. A process that
// reuses the ID of a caller is not named. Programs choose their own names, so
// nothing is decided by them.
package callers

import (
	"context"
	"sync"
	"time"

	"bloq-agent/ipc"
)

const (
	size        = 256 // requests
	maxPrograms = 32  // in a list
	// maxLooks is how many callers are looked up in a second. The kernel makes and
	// removes a directory in /proc for each, which costs a helper 50 µs of its 1.3 ms.
	maxLooks = 20
	knownFor = time.Second // after it was looked up, a process can be another
)

// A Ring holds the last requests. Its zero value works, without names.
type Ring struct {
	mu   sync.Mutex
	ring [size]struct {
		ipc.Request
		caller *Process
	}
	total  int       // the next request goes to ring[total%size]
	second time.Time // when looks was 0
	looks  int
	queue  chan *Process // nil until Run
}

// Run looks callers up until ctx ends.
func (r *Ring) Run(ctx context.Context) {
	queue := make(chan *Process, maxLooks)
	r.mu.Lock()
	r.queue = queue
	r.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-queue:
			p.look("/proc")
		}
	}
}

// Meet begins to look a process up, and the parent of a helper. The machine had
// run for uptime when it connected.
func (r *Ring) Meet(pid int, uptime time.Duration, helper bool) *Process {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := r.total - 1; i >= max(0, r.total-size) && now.Sub(r.ring[i%size].Time) < knownFor; i-- {
		if p := r.ring[i%size].caller; p.pid == pid && p.helper == helper && now.Sub(p.met) < knownFor {
			return p
		}
	}
	if now.Sub(r.second) >= time.Second {
		r.second, r.looks = now, 0
	}
	queue := r.queue
	if r.looks++; r.looks > maxLooks {
		queue = nil
	}
	p := &Process{pid: pid, uptime: uptime, helper: helper, met: now, looked: make(chan struct{})}
	select {
	case queue <- p:
	default:
		close(p.looked) // it stays without a name
	}
	return p
}

// Add records a request.
func (r *Ring) Add(caller *Process, q ipc.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q.Time = time.Now()
	slot := &r.ring[r.total%size]
	slot.Request, slot.caller = q, caller
	r.total++
}

// List returns the programs and their requests, the newest first.
func (r *Ring) List() ([]ipc.Caller, []ipc.Request) {
	r.mu.Lock()
	ring, total := r.ring, r.total
	r.mu.Unlock()
	programs, requests := []ipc.Caller{}, []ipc.Request{}
	places := map[[2]string]int{} // in programs
	for i := total - 1; i >= max(0, total-size); i-- {
		q := ring[i%size].Request
		ring[i%size].caller.Name(&q)
		requests = append(requests, q)
		place, ok := places[[2]string{q.Executable, q.Unit}]
		if !ok {
			place = len(programs)
			places[[2]string{q.Executable, q.Unit}] = place
			programs = append(programs, ipc.Caller{Executable: q.Executable, Unit: q.Unit, PID: q.PID, Requests: map[string]uint64{}, LastSeen: q.Time})
		}
		programs[place].Requests[q.Asked]++
	}
	return programs[:min(len(programs), maxPrograms)], requests
}
