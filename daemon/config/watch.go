package config

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quietTime is how long the file must rest before it is read: editors write in
// several steps.
const quietTime = 200 * time.Millisecond

// Watch sends on the channel it returns when the file at path may
// have changed, until ctx ends.
func Watch(ctx context.Context, path string) (<-chan struct{}, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	changed := make(chan struct{})
	watchNearest(w, filepath.Dir(path))
	go watch(ctx, w, filepath.Dir(path), changed)
	return changed, nil
}

func watch(ctx context.Context, w *fsnotify.Watcher, dir string, changed chan<- struct{}) {
	defer func() { _ = w.Close() }()
	quiet := time.NewTimer(quietTime)
	quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-w.Events:
			if !ok {
				return
			}
			quiet.Reset(quietTime)
		case <-w.Errors:
			quiet.Reset(quietTime) // events may have been lost: look for ourselves
		case <-quiet.C:
			watchNearest(w, dir)
			select {
			case changed <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}
}

// watchNearest watches the nearest directory to dir that exists, and returns it:
// fsnotify can neither watch what is not there nor keep watching a file that an
// editor replaces. It begins at the root, so that a directory that is made in the
// meantime is either found, or seen by the watch of the one above. It asks for each
// watch anew, since a directory that was removed and made again has lost its own.
func watchNearest(w *fsnotify.Watcher, dir string) (watched string) {
	if above := filepath.Dir(dir); above != dir {
		watched = watchNearest(w, above)
	}
	if w.Add(dir) != nil {
		return watched // dir is not there, or is not ours to read
	}
	if watched != "" {
		_ = w.Remove(watched) // it may be gone, and its watch with it
	}
	return dir
}
