package daemon

import (
	"context"
	"time"
)

// probeGap is the longest that a store which failed goes without another try.
const probeGap = 30 * time.Second

// probePause is how long the nth look at a store is waited for. The first, 0, is
// for what happened before the watch stood.
func probePause(n int) time.Duration {
	if n == 0 {
		return 0
	}
	return min(time.Second<<min(n-1, 10), probeGap)
}

// A patience says when a store that cannot be had is worth another look: when it
// may have changed, and now and then, because a hint can be missed and other
// stores than the keyring give none.
type patience struct {
	d       *Daemon
	store   string
	changed <-chan struct{} // nil while there is no watch
	n       int             // looks so far
}

func (d *Daemon) waitFor(store string) *patience { return &patience{d: d, store: store} }

// wait reports false when ctx has ended.
func (w *patience) wait(ctx context.Context) bool {
	// A bus that went may be back, and tells of the next unlock.
	if w.changed == nil && w.store == "keyring" {
		w.changed = w.d.options.Stores.Keyring.Watch(ctx)
	}
	select {
	case <-ctx.Done():
		return false
	case _, stands := <-w.changed:
		if !stands {
			w.changed = nil
		}
	case <-time.After(w.d.pause(w.n)):
		w.n++
	}
	return true
}
