package daemon

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
)

// eventBacklog is how many events a watcher may be behind before it is cut off.
const eventBacklog = 64

// A hub hands events to those who watch.
type hub struct {
	mu       sync.Mutex
	watchers map[chan ipc.Event]struct{} // nil before init and after close
}

func (h *hub) init() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers = map[chan ipc.Event]struct{}{}
}

// publish never blocks: it is called by the refreshers' loops. A watcher that
// does not keep up loses its subscription, and sees that in the closed stream,
// instead of losing events unnoticed.
func (h *hub) publish(e ipc.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		select {
		case w <- e:
		default:
			delete(h.watchers, w)
			close(w)
		}
	}
}

// subscribe returns nil if the hub is closed.
func (h *hub) subscribe() chan ipc.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers == nil {
		return nil
	}
	w := make(chan ipc.Event, eventBacklog)
	h.watchers[w] = struct{}{}
	return w
}

func (h *hub) unsubscribe(w chan ipc.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.watchers[w]; ok {
		delete(h.watchers, w)
		close(w)
	}
}

// close ends every stream.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		close(w)
	}
	h.watchers = nil
}

// handleEvents streams server-sent events (WHATWG HTML, section 9.2): first
// one "status" for each profile, then what happens. Bloq-Wait does not end it.
func (a api) handleEvents(w http.ResponseWriter, r *http.Request) {
	events := a.hub.subscribe()
	if events == nil {
		fail(w, errStopping)
		return
	}
	defer a.hub.unsubscribe(events)
	gone := server.Gone(r)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	for _, p := range a.profiles() {
		status := a.describe(p.Status())
		e := ipc.Event{Time: a.outside.Clock.Now().UTC(), Event: "status", Profile: p.Name(), Status: &status}
		if writeEvent(w, out, e) != nil {
			return
		}
	}
	if out.Flush() != nil {
		return
	}
	for {
		select {
		case <-gone:
			return
		case e, ok := <-events:
			if !ok || writeEvent(w, out, e) != nil || out.Flush() != nil {
				return
			}
		}
	}
}

func writeEvent(w http.ResponseWriter, out *http.ResponseController, e ipc.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := out.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", e.Event, data)
	return err
}
