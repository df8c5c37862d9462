package daemon

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"bloq-agent/store/trusted"

	"github.com/fsnotify/fsnotify"
)

// quietTime is how long the file must rest before it is read: editors write in
// several steps.
const quietTime = 200 * time.Millisecond

// A watcher tells when the configuration file may have changed. It watches the
// nearest directory that exists, since fsnotify can neither watch what is not
// there nor keep watching a file that an editor replaces.
type watcher struct {
	notify *fsnotify.Watcher
	path   string
	at     string // the directory that is watched; "" if none could be
}

// watch sends on the channel it returns, until ctx ends. Without inotify there
// is still SIGHUP, so the error is logged and no more.
func (d *Daemon) watch(ctx context.Context) <-chan struct{} {
	changed := make(chan struct{})
	n, err := fsnotify.NewWatcher()
	if err != nil {
		d.log.Warn().Err(err).Msg("configuration is not watched; send SIGHUP after a change")
		return changed
	}
	w := &watcher{notify: n, path: d.options.ConfigPath}
	w.move()
	go w.run(ctx, changed)
	return changed
}

func (w *watcher) run(ctx context.Context, changed chan<- struct{}) {
	defer func() { _ = w.notify.Close() }()
	quiet := time.NewTimer(quietTime)
	quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-w.notify.Events:
			if !ok {
				return
			}
			quiet.Reset(quietTime)
		case _, ok := <-w.notify.Errors:
			if !ok {
				return
			}
			quiet.Reset(quietTime) // events may have been lost: look for ourselves
		case <-quiet.C:
			w.move()
			select {
			case changed <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}
}

// move watches the nearest directory of the file that exists now. It asks for
// the watch anew each time, since a directory that was removed and made again
// has lost its own, and looks again for what was made in the meantime.
func (w *watcher) move() {
	for {
		dir, below := filepath.Dir(w.path), ""
		var why error // below cannot be watched
		for err := w.notify.Add(dir); err != nil; err = w.notify.Add(dir) {
			if filepath.Dir(dir) == dir {
				return
			}
			dir, below, why = filepath.Dir(dir), dir, err
		}
		if w.at != "" && w.at != dir {
			_ = w.notify.Remove(w.at) // it may be gone, and its watch with it
		}
		w.at = dir
		// What is there but is not ours to read will not become so by looking.
		if _, err := os.Stat(below); below == "" || err != nil || !errors.Is(why, fs.ErrNotExist) {
			return
		}
	}
}

// reloadChanged is reload for a hint of the file system, which also comes when
// nothing of ours has changed, or half of it.
func (d *Daemon) reloadChanged() {
	data, err := trusted.ReadFile(d.options.ConfigPath)
	if err == nil && len(data) == 0 {
		return // truncated, and about to be written
	}
	if bytes.Equal(data, d.config.lastRead) && (err == nil || os.IsNotExist(err)) {
		return // some other file of the directory
	}
	d.reload()
}

// recheckPause is for a configuration that is refused. The command that mends it
// may change a directory that the watcher does not see.
const recheckPause = 5 * time.Second

// recheck fires when a refused configuration should be looked at again, and never
// if it is not refused.
func (d *Daemon) recheck() <-chan time.Time {
	var refused *trusted.Error
	if !errors.As(d.config.current.Load().err, &refused) {
		return nil
	}
	return time.After(recheckPause)
}

// reloadMended is reload, unless what is wrong is what was wrong before.
func (d *Daemon) reloadMended() {
	_, _, err := LoadConfig(d.options.ConfigPath)
	if before := d.config.current.Load().err; err != nil && before != nil && err.Error() == before.Error() {
		return
	}
	d.reload()
}
