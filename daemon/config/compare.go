package config

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// A look is what stat(2) says of a file, as far as a change shows there.
type look struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
	err          error
}

func lookAt(path string) look {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return look{err: err}
	}
	return look{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// Compare is for changes that Watch does not see: on a file system over the
// network, or where the kernel has no watch left. It looks at the file each time
// that asked sends, and sends on the channel it returns if the file is another one
// than at the look before. It makes one look at a time, so a disk that hangs holds
// only this one up. It ends with ctx.
func Compare(ctx context.Context, path string, asked <-chan struct{}) <-chan struct{} {
	changed := make(chan struct{})
	go func() {
		var last look // so the first look sends: the file may have changed before it
		for {
			select {
			case <-ctx.Done():
				return
			case <-asked:
			}
			now := lookAt(path)
			if now == last {
				continue
			}
			last = settled(ctx, path, now)
			select {
			case changed <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return changed
}

// settled is the first look that finds what the one before found: a half-written
// file is not read.
func settled(ctx context.Context, path string, last look) look {
	for {
		select {
		case <-ctx.Done():
			return last
		case <-time.After(quietTime):
		}
		now := lookAt(path)
		if now == last {
			return now
		}
		last = now
	}
}
