package daemon

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"

	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
)

const (
	// A stream holds its connection for as long as its peer likes, so streams may
	// take a small part of the connections. The rest is for requests that end.
	maxWatchers      = 32
	maxWatchersOfOne = 8 // process
	// eventBacklog is how many events may wait for a watcher. After more than that
	// it gets the state of each profile in their place.
	eventBacklog = 1024
)

// A hub hands events to those who watch.
type hub struct {
	mu       sync.Mutex
	limit    int
	watchers map[*watcher]struct{} // nil before init and after close
}

// A watcher is one event stream. Its events wait in a queue that publish never
// waits for, and that a burst does not fill: a watcher that reads is not cut off.
type watcher struct {
	pid   int
	ready chan struct{} // has a value if something waits; closed if the stream is to end

	// hub.mu guards these.
	waiting []ipc.Event
	missed  bool // too many waited
}

func (h *hub) init() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.limit = min(maxWatchers, server.MaxConns()/2)
	h.watchers = map[*watcher]struct{}{}
}

// publish never blocks: it is called by the refreshers' loops.
func (h *hub) publish(e ipc.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		if len(w.waiting) == eventBacklog {
			w.waiting, w.missed = nil, true
		}
		if !w.missed {
			w.waiting = append(w.waiting, e)
		}
		select {
		case w.ready <- struct{}{}:
		default: // it is about to look
		}
	}
}

// take returns the events that wait for w, or that w missed some.
func (h *hub) take(w *watcher) (events []ipc.Event, missed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	events, missed = w.waiting, w.missed
	w.waiting, w.missed = nil, false
	return events, missed
}

// subscribe adds a stream of the process pid.
func (h *hub) subscribe(pid int) (*watcher, *ipc.Problem) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers == nil {
		return nil, errStopping
	}
	streams, most := map[int]int{}, pid // by process
	for w := range h.watchers {
		if streams[w.pid]++; streams[w.pid] > streams[most] {
			most = w.pid
		}
	}
	if n := streams[pid]; n >= maxWatchersOfOne {
		return nil, tooManyWatchers("process %d has %d event streams, the most that one process may have", pid, n)
	}
	if n := len(h.watchers); n >= h.limit {
		return nil, tooManyWatchers("%d event streams are open, the most that the daemon allows; process %d has %d of them", n, most, streams[most])
	}
	w := &watcher{pid: pid, ready: make(chan struct{}, 1)}
	h.watchers[w] = struct{}{}
	return w, nil
}

// tooManyWatchers has no hint: only you know which of your programs may stop
// watching. So the detail names the process that has the most streams.
func tooManyWatchers(why string, args ...any) *ipc.Problem {
	return &ipc.Problem{Code: ipc.CodeUnavailable, Detail: "too many watchers: " + fmt.Sprintf(why, args...)}
}

func (h *hub) unsubscribe(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

// close ends every stream.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		close(w.ready)
	}
	h.watchers = nil
}

// handleEvents streams server-sent events (WHATWG HTML, section 9.2): first
// one "status" for each profile, then what happens. Bloq-Wait does not end it.
func (a api) handleEvents(w http.ResponseWriter, r *http.Request) {
	watcher, problem := a.hub.subscribe(server.PeerOf(r.Context()).PID)
	if problem != nil {
		fail(w, problem)
		return
	}
	defer a.hub.unsubscribe(watcher)
	gone := server.Gone(r)
	out := server.NewStream(w, r, "text/event-stream")
	events := statusEvents(a)
	for {
		for _, e := range events {
			if writeEvent(out, e) != nil {
				return
			}
		}
		select {
		case <-gone:
			return
		case _, ok := <-watcher.ready:
			if !ok {
				return
			}
		}
		var missed bool
		if events, missed = a.hub.take(watcher); missed {
			events = statusEvents(a)
		}
	}
}

// statusEvents are what each profile is now.
func statusEvents(a api) []ipc.Event {
	var events []ipc.Event
	for _, p := range a.profiles() {
		status := a.describe(p.Status())
		events = append(events, ipc.Event{Time: a.outside.Clock.Now().UTC(), Event: "status", Profile: p.Name(), Status: &status})
	}
	return events
}

func writeEvent(w io.Writer, e ipc.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = w.Write(fmt.Appendf(nil, "event: %s\ndata: %s\n\n", e.Event, data))
	return err
}
