// Package trusted reads files that only this user or root could have written.
//
// A file is refused unless it is a regular file of this user or root that
// nobody else can write. The same holds of each directory on the way to it and
// to whatever symbolic links lead to, because whoever can write there can put
// another file in its place. There are two exceptions for directories: one on a
// read-only mount, and a sticky one (/tmp) if the next entry belongs to this user
// or root.
//
// A group may write if this user is its only member: see ownGroup.
//
// On Linux the walk to a file goes one component at a time through open
// directories, so that what was checked is what is opened.
package trusted

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// maxSize bounds what ReadFile reads.
const maxSize = 1 << 20

// An Error says why a file is not to be trusted.
type Error struct {
	File   string // that was to be read
	Path   string // what is wrong: File, or a directory or link on the way to it
	Reason string // "can be written by others"
	Mend   string // a command for the shell; "" if there is none
}

func (e *Error) Error() string {
	text := e.Path + " " + e.Reason
	if e.Path != e.File {
		text = e.File + ": " + text
	}
	if e.Mend != "" {
		text += " (" + e.Mend + ")"
	}
	return text
}

// ReadFile is os.ReadFile for a file that is to be trusted and not longer than 1
// MiB. It never blocks on a FIFO. The error is an *Error if the file is
// refused, and fs.ErrNotExist if it is not there.
func ReadFile(path string) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxSize {
		return nil, fmt.Errorf("%s is longer than 1 MiB", path)
	}
	return b, nil
}

// Mend is the command that mends err, or "".
func Mend(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Mend
	}
	return ""
}

// ReadOwn is ReadFile for secrets: the file must be ours and not root's, no
// symbolic link, and closed to everybody else.
func ReadOwn(path string) ([]byte, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if e := nodeOf(path, fi).private(); e != nil {
		return nil, e
	}
	return ReadFile(path) // which finds the same file, if nobody else writes on the way
}

// Open opens a file for reading, if it is to be trusted. The file that was
// checked is the one that is open.
func Open(path string) (*os.File, error) {
	if path == "" {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return open(path)
}

// CheckParents checks each directory on the way to path, links followed, and
// nothing of what lies at path itself.
func CheckParents(path string) error { return checkParents(path) }
