package trusted

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// CheckOwn is for what this program made itself: the file or directory at path, as
// want says, must be ours and not root's. If its mode lets others write, they must
// never have been able to reach it: what they write there decides where the next
// password is sent. A link to a directory is followed. A refusal is an *Error.
func CheckOwn(path string, want fs.FileMode) error {
	stat := os.Lstat
	if want == fs.ModeDir {
		stat = os.Stat
	}
	fi, err := stat(path)
	if err != nil {
		return err
	}
	n := nodeOf(path, fi)
	change := ""
	if n.mode&0o022 != 0 {
		change = "go-w"
	}
	e := &Error{File: path, Path: path}
	switch {
	case fi.Mode().Type() != want && want == fs.ModeDir:
		e.Reason = "is not a directory"
	case fi.Mode().Type() != want:
		e.Reason = "is not a regular file"
	case !ours(n.uid):
		return n.foreign(path, change)
	case change != "" && othersReach(path):
		e.Reason, e.Mend = "can be written by others", n.chmod(change)
	default:
		return nil
	}
	return e
}

// othersReach reports whether another user can have written at path, whose mode
// lets a group or others write. They cannot if the group is only ours, or if a
// directory of ours on the way is closed to them.
func othersReach(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return true
	}
	n, err := nodeAt(real)
	switch {
	case err != nil:
		return true
	case n.othersWrite() == "":
		return false
	case n.is(syscall.S_IFREG) && n.links > 1:
		return true // by another name
	}
	for up := filepath.Dir(real); up != real; real, up = up, filepath.Dir(up) {
		if d, err := nodeAt(up); err == nil && ours(d.uid) && !d.othersEnter() {
			return false
		}
	}
	return true
}

// othersEnter reports whether a user besides us and root may go through d.
func (d node) othersEnter() bool {
	return d.mode&0o001 != 0 || d.mode&0o010 != 0 && (!ownGroup(d.gid) || d.listed())
}
