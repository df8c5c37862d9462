package sink

import (
	"context"
	"slices"
	"strings"
	"time"
)

// What an Event tells, in the words of a log line.
const (
	Wrote        = "wrote a sink"
	Removed      = "removed a sink"
	Failed       = "sink is not as it should be"
	Mended       = "sink is in order again"
	CommandEnded = "command of a sink ended"
	Unread       = "sinks of the run before are not known"
	Unrecorded   = "sinks are not recorded; a restart will not know which files are ours"
)

// An Event is for a log.
type Event struct {
	What          string
	Profile, Path string
	Generation    uint64 // of the token in a file that was written
	Output        string // of a command
	Err           error
	News          bool // the profile's Status is another now
}

// A Status is what has become of a configured sink.
type Status struct {
	Sink
	Written         time.Time // zero if this Keeper has not written it, or has removed it
	Err, CommandErr error
}

// An Unremoved is a file that should be gone and may be there.
type Unremoved struct {
	Profile, Path string
	Err           error
}

// Settle returns when every file of profile, or of all if that is "", is as it
// should be or has failed to be, or when ctx ends. It returns those that should
// be gone and may be there.
func (k *Keeper) Settle(ctx context.Context, profile string) []Unremoved {
	waits := map[*file]chan struct{}{}
	k.mu.Lock()
	k.wake()
	for _, f := range k.files {
		if f.idle != nil && (profile == "" || f.owner() == profile) {
			waits[f] = f.idle
		}
	}
	k.mu.Unlock()
	for f, idle := range waits {
		select {
		case <-idle:
			continue
		case <-ctx.Done():
		}
		select {
		case <-idle:
		default:
			k.settled(f, ErrNoAnswer, func() { f.leaving = true })
		}
	}
	return k.unremoved(func(f *file) bool { return waits[f] != nil })
}

// Status is that of a profile's sinks, in the order of the configuration.
func (k *Keeper) Status(profile string) []Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []Status
	for _, w := range k.wanted {
		if f := k.files[w.Path]; f != nil && w.Profile == profile {
			s := Status{w, f.written, f.err, f.commandErr}
			if !f.busy.IsZero() && time.Since(f.busy) > Patience {
				s.Err = ErrNoAnswer
			}
			list = append(list, s)
		}
	}
	return list
}

// Dropped are the files that should be gone and that no configured sink names.
func (k *Keeper) Dropped() []Unremoved {
	return k.unremoved(func(f *file) bool {
		return !slices.ContainsFunc(k.wanted, func(w Sink) bool { return w.Path == f.path })
	})
}

// unremoved are the files that should be gone, of those that which wants.
func (k *Keeper) unremoved(which func(*file) bool) []Unremoved {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []Unremoved
	for _, f := range k.files {
		if f.leaving && which(f) {
			list = append(list, Unremoved{f.owner(), f.path, f.err})
		}
	}
	slices.SortFunc(list, func(a, b Unremoved) int { return strings.Compare(a.Path, b.Path) })
	return list
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
