package trusted

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is the kernel's own limit.
const maxLinks = 40

// A walk goes to a file one component at a time, through open directories, and
// follows links by itself. What it has looked at is what it goes on from.
type walk struct {
	file    string // where to, for messages
	dir     int    // the directory that it has come to
	at      node   // the same
	links   int
	refused *Error // the first
}

func open(path string) (*os.File, error) {
	w, last, err := walkTo(path)
	if err != nil {
		return nil, err
	}
	defer w.close()
	// Not before the end: what is not there is not there, wherever that is.
	if w.refused != nil {
		return nil, w.refused
	}
	// Without O_NONBLOCK a FIFO would hold us until somebody writes.
	fd, err := openat(w.dir, filepath.Base(last.path), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY)
	switch {
	case err == nil:
	case !last.is(unix.S_IFREG):
		return nil, last.readable(path)
	case errors.Is(err, unix.EACCES):
		return nil, last.denied(path)
	default:
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	n, err := look(fd, last.path)
	if err == nil {
		if e := n.readable(path); e != nil {
			err = e
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func checkParents(path string) error {
	w, _, err := walkTo(path)
	if err != nil {
		return err
	}
	w.close()
	if w.refused != nil {
		return w.refused
	}
	return nil
}

// walkTo ends in the directory of the file that path leads to. A directory is
// an end too, from which the walk has nowhere to go. What exists is never missing:
// a link of /proc/PID/fd leads to a pipe or a deleted file by no name at all.
func walkTo(path string) (*walk, node, error) {
	w, last, err := walkOnce(path)
	if !errors.Is(err, fs.ErrNotExist) || !exists(path) {
		return w, last, err
	}
	w, last, err = walkOnce(path) // it may have come in between
	if !errors.Is(err, fs.ErrNotExist) {
		return w, last, err
	}
	fi, statErr := os.Stat(path)
	if statErr != nil {
		return nil, node{}, err
	}
	e := &Error{File: path, Path: path, Reason: "has no name in any directory; name a regular file"}
	if fi.Mode()&fs.ModeNamedPipe != 0 {
		e.Reason = "is a pipe; name a regular file"
	}
	return nil, node{}, e
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func walkOnce(path string) (*walk, node, error) {
	absolute := path
	if !filepath.IsAbs(path) {
		cwd, err := os.Getwd()
		if err != nil {
			return nil, node{}, err
		}
		absolute = cwd + "/" + path // not cleaned: link/.. is not here
	}
	w := &walk{file: path, dir: -1}
	last, err := w.run(absolute)
	if err != nil {
		w.close()
		return nil, node{}, err
	}
	return w, last, nil
}

func (w *walk) run(path string) (node, error) {
	if err := w.root(); err != nil {
		return node{}, err
	}
	last := w.at
	rest := components(path)
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		target, entry, err := w.step(name, len(rest) == 0)
		if err != nil {
			return node{}, err
		}
		last = entry
		if target == "" {
			continue
		}
		rest = append(components(target), rest...)
		if filepath.IsAbs(target) {
			if err := w.root(); err != nil {
				return node{}, err
			}
		}
	}
	return last, nil
}

// components keeps "..", which after a link is not what the path looks like.
func components(path string) []string {
	var names []string
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}

func (w *walk) root() error {
	fd, err := openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	return w.move(fd, "/")
}

// step looks at an entry of the directory. It moves into the entry unless that is
// the last one, and returns where to if it is a link.
func (w *walk) step(name string, last bool) (target string, entry node, err error) {
	path := filepath.Join(w.at.path, name)
	// O_DIRECTORY has an automounter mount what belongs there.
	fd, err := openat(w.dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) {
		fd, err = openat(w.dir, name, unix.O_PATH|unix.O_NOFOLLOW)
	}
	if errors.Is(err, unix.EACCES) {
		return "", node{}, w.at.closed(w.file)
	}
	if err != nil {
		return "", node{}, &fs.PathError{Op: "open", Path: w.file, Err: err}
	}
	if entry, err = look(fd, path); err != nil {
		_ = unix.Close(fd)
		return "", node{}, err
	}
	if e := w.at.enterable(w.file, entry, w.readOnly); e != nil && name != ".." && w.refused == nil {
		w.refused = e
	}
	switch {
	case entry.is(unix.S_IFLNK):
		defer func() { _ = unix.Close(fd) }()
		target, err = w.readLink(fd, path)
		return target, entry, err
	case last:
		return "", entry, unix.Close(fd)
	case !entry.is(unix.S_IFDIR):
		_ = unix.Close(fd)
		return "", node{}, &fs.PathError{Op: "open", Path: w.file, Err: unix.ENOTDIR}
	}
	return "", entry, w.move(fd, path)
}

func (w *walk) readLink(fd int, path string) (string, error) {
	if w.links++; w.links > maxLinks {
		return "", &fs.PathError{Op: "open", Path: w.file, Err: unix.ELOOP}
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	return string(buf[:n]), nil
}

// move takes fd over.
func (w *walk) move(fd int, path string) error {
	w.close()
	w.dir = fd
	at, err := look(fd, path)
	w.at = at
	return err
}

func (w *walk) close() {
	if w.dir >= 0 {
		_ = unix.Close(w.dir)
	}
	w.dir = -1
}

// readOnly reports whether the directory lies on a read-only mount.
func (w *walk) readOnly() bool {
	var st unix.Statfs_t
	return unix.Fstatfs(w.dir, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}

// look is fstat(2).
func look(fd int, path string) (node, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return node{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return node{path: path, mode: st.Mode, uid: st.Uid, gid: st.Gid, links: uint64(st.Nlink), listed: func() bool { return hasACL(fd) }}, nil
}

// nodeAt is lstat(2), access control list included.
func nodeAt(path string) (node, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return node{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	n, err := look(fd, path)
	if err != nil {
		_ = unix.Close(fd)
		return node{}, err
	}
	listed := hasACL(fd)
	n.listed = func() bool { return listed }
	return n, unix.Close(fd)
}

// hasACL goes by /proc, because a descriptor of O_PATH has no attributes. Where
// it can't be asked there may be one.
func hasACL(fd int) bool {
	_, err := unix.Getxattr("/proc/self/fd/"+strconv.Itoa(fd), "system.posix_acl_access", nil)
	return !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP)
}

func openat(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) { // file systems of user space can be interrupted
			return fd, err
		}
	}
}
