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
package trusted

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// maxSize bounds what ReadFile reads.
const maxSize = 1 << 20

// An Error says why a file is not to be trusted.
type Error struct {
	File   string // that was to be read
	Path   string // what is wrong: File, or a directory or link on the way to it
	Reason string // "is writable by other users"
	Mend   string // a command for the shell; "" if there is none
}

func (e *Error) Error() string {
	text := e.Path + " " + e.Reason
	if e.Path != e.File {
		text = fmt.Sprintf("%s: %s, on the way to it, %s", e.File, e.Path, e.Reason)
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

// Open opens a file for reading, if it is to be trusted. The file that was
// checked is the one that is open.
func Open(path string) (*os.File, error) { return open(path) }

// CheckParents checks each directory on the way to path, links followed, and
// nothing of what lies at path itself.
func CheckParents(path string) error { return checkParents(path) }

// A node is what the rules look at.
type node struct {
	path     string
	mode     fs.FileMode
	uid, gid uint32
	// listed reports whether an access control list may name further writers.
	// The mode shows those as rights of the group.
	listed func() bool
}

// owned reports whether n belongs to us or root.
func (n node) owned() bool { return n.uid == 0 || int(n.uid) == os.Getuid() }

// othersWrite is the classes that may write n besides us and root: "", "g", "o",
// or "go".
func (n node) othersWrite() string {
	who := ""
	if n.mode&0o020 != 0 && (!ownGroup(n.gid) || n.listed()) {
		who = "g"
	}
	if n.mode&0o002 != 0 {
		who += "o"
	}
	return who
}

// fault is what the rules have against n, for a person who wants to read file.
func (n node) fault(file string) *Error {
	e := &Error{File: file, Path: n.path}
	who := n.othersWrite()
	switch {
	case !n.owned():
		e.Reason, e.Mend = "belongs to "+userName(n.uid), n.chown()
	case who == "g":
		e.Reason = "is writable by its group"
	case who != "":
		e.Reason = "is writable by other users"
	default:
		return nil
	}
	if who != "" {
		e.Mend = and(e.Mend, n.chmod(who+"-w"))
	}
	return e
}

// enterable is what the rules have against d as the directory that entry was
// found in.
func (d node) enterable(file string, entry node, readOnly func() bool) *Error {
	e := d.fault(file)
	if e == nil || readOnly() {
		return nil
	}
	if !d.owned() || d.mode&fs.ModeSticky == 0 {
		return e
	}
	if entry.owned() {
		return nil
	}
	return &Error{File: file, Path: entry.path, Reason: "belongs to " + userName(entry.uid), Mend: entry.chown()}
}

// readable is what the rules have against n as the file to read.
func (n node) readable(file string) *Error {
	if !n.mode.IsRegular() {
		return &Error{File: file, Path: n.path, Reason: "is not a regular file"}
	}
	return n.fault(file)
}

// denied is the answer to a file whose mode keeps us from reading it.
func (n node) denied(file string) *Error {
	e := &Error{File: file, Path: n.path, Reason: "is not readable for " + userName(uint32(os.Getuid()))}
	if int(n.uid) != os.Getuid() {
		e.Mend = n.chown()
	}
	if n.mode&0o400 == 0 {
		e.Mend = and(e.Mend, n.chmod("u+r"))
	}
	return e
}

func (n node) chown() string {
	command := "chown "
	if os.Getuid() != 0 {
		command = "sudo chown "
	}
	if n.mode&fs.ModeSymlink != 0 {
		command += "-h "
	}
	return command + accountName(uint32(os.Getuid())) + " " + shellWord(n.path)
}

func (n node) chmod(change string) string {
	command := "chmod "
	if n.uid == 0 && os.Getuid() != 0 {
		command = "sudo chmod "
	}
	return command + change + " " + shellWord(n.path)
}

func and(a, b string) string {
	if a == "" {
		return b
	}
	return a + " && " + b
}

// userName names a user for people.
func userName(uid uint32) string {
	name := accountName(uid)
	if name == strconv.Itoa(int(uid)) {
		return "uid " + name
	}
	return name
}

// shellWord quotes s for a shell and a terminal.
func shellWord(s string) string {
	plain := func(c rune) bool {
		return c > ' ' && c < 0x7f && !strings.ContainsRune("\"'`$&*()[]{}<>|;?!~#\\", c)
	}
	if strings.IndexFunc(s, func(c rune) bool { return !plain(c) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
