package config

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quietTime is how long the file must rest before it is read: editors write in
// several steps.
const quietTime = 200 * time.Millisecond

// maxLinks is the kernel's own limit.
const maxLinks = 40

// Watch sends on the channel it returns when the file at path may have changed,
// until ctx ends. The error says why some or all changes are not seen.
func Watch(ctx context.Context, path string) (<-chan struct{}, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	changed := make(chan struct{})
	names, err := watchWay(w, path)
	go watch(ctx, w, path, names, changed)
	return changed, err
}

func watch(ctx context.Context, w *fsnotify.Watcher, path string, names map[string]bool, changed chan<- struct{}) {
	defer func() { _ = w.Close() }()
	quiet := time.NewTimer(quietTime)
	quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.Events:
			if !ok {
				return
			}
			if names[filepath.Clean(e.Name)] { // much else changes in a home directory
				quiet.Reset(quietTime)
			}
		case <-w.Errors:
			quiet.Reset(quietTime) // events may have been lost: look for ourselves
		case <-quiet.C:
			names, _ = watchWay(w, path) // what is not watched is compared
			select {
			case changed <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}
}

// watchWay has w watch each directory that a look-up of path goes through, links
// followed, as far as they exist: fsnotify can neither watch what is not there nor
// keep watching a file that an editor replaces. It returns the names in these
// directories that matter. A directory is watched before the name in it is looked
// up, so a change is either found here or seen by the watch. Each watch is made
// anew, because one stays with a directory that was moved away.
func watchWay(w *fsnotify.Watcher, path string) (names map[string]bool, err error) {
	for _, dir := range w.WatchList() {
		_ = w.Remove(dir) // it may be gone, and its watch with it
	}
	names = map[string]bool{}
	dir, rest := "/", components(path)
	failed := add(w, dir)
	for links := 0; len(rest) > 0 && links < maxLinks; {
		at := filepath.Join(dir, rest[0]) // dir is no link, so its .. is where it seems
		rest = rest[1:]
		names[at] = true
		fi, err := os.Lstat(at)
		switch {
		case err != nil:
			return names, failed
		case fi.Mode().Type() == fs.ModeSymlink:
			links++
			target, err := os.Readlink(at)
			if err != nil {
				return names, failed
			}
			if filepath.IsAbs(target) {
				dir = "/"
			}
			rest = append(components(target), rest...)
		case fi.IsDir():
			dir = at
			failed = cmp.Or(failed, add(w, dir))
		}
	}
	return names, failed
}

// components keeps "..", which after a link is not what the path looks like.
func components(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// add does not count it as a failure that a directory is closed to us or gone.
func add(w *fsnotify.Watcher, dir string) error {
	err := w.Add(dir)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watching %s: %w", dir, err)
	}
	return nil
}
