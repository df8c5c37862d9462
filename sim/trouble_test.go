//go:build linux

package sim

import "time"

// A trouble is whatever can keep a refresh token from being saved. While there is some,
// and for a while after it, the end of the daemon may cost a login.
type trouble struct {
	active map[string]time.Time // since when, by what it is
	began  time.Time            // when there was none before
	ended  time.Time            // when there was none after
	held   bool                 // the agent was locked meanwhile, so nothing is saved until an unlock
}

// tail is how long after the end of a trouble a save may still be to come: it is tried
// again every 30 s at the latest.
const tail = 45 * time.Second

func (t *trouble) set(what string, is bool) {
	if t.active == nil {
		t.active = map[string]time.Time{}
	}
	since, was := t.active[what]
	switch {
	case is && len(t.active) == 0:
		t.began = time.Now()
	case !is && was && len(t.active) == 1:
		t.ended = time.Now()
	}
	if !was {
		since = time.Now()
	}
	if is {
		t.active[what] = since
	} else {
		delete(t.active, what)
	}
}

// since reports whether a save that began at that time may have met trouble.
func (t *trouble) since(at time.Time) bool {
	return len(t.active) > 0 || t.held || !t.ended.IsZero() && !t.ended.Add(tail).Before(at)
}

// steady reports whether what has lasted for longer than d.
func (t *trouble) steady(what string, d time.Duration) bool {
	since, is := t.active[what]
	return is && time.Since(since) > d
}

func (t *trouble) locked() { t.held = t.held || t.since(time.Now()) }

func (t *trouble) unlocked() {
	if t.held {
		t.held, t.ended = false, time.Now()
	}
}
