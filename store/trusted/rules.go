package trusted

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"bloq-agent/userns"
)

// A node is what the rules look at.
type node struct {
	path     string
	mode     uint32 // of stat(2)
	uid, gid uint32
	links    uint64
	// listed reports whether an access control list may name further writers.
	// The mode shows those as rights of the group.
	listed func() bool
}

func nodeOf(path string, fi fs.FileInfo) node {
	st := fi.Sys().(*syscall.Stat_t)
	return node{path: path, mode: uint32(st.Mode), uid: st.Uid, gid: st.Gid, links: uint64(st.Nlink), listed: func() bool { return false }}
}

func (n node) is(kind uint32) bool { return n.mode&syscall.S_IFMT == kind }

func ours(uid uint32) bool { return int(uid) == os.Getuid() && !userns.Unknown(uid) }

func oursOrRoots(uid uint32) bool { return uid == 0 || ours(uid) }

func (n node) goodOwner() bool {
	return oursOrRoots(n.uid) || n.is(syscall.S_IFDIR) && maybeRoot(n.uid)
}

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
	who := n.othersWrite()
	change := ""
	if who != "" {
		change = who + "-w"
	}
	e := &Error{File: file, Path: n.path, Mend: n.chmod(change)}
	switch {
	case !n.goodOwner():
		return n.foreign(file, change)
	case who == "g":
		e.Reason = "can be written by its group"
	case who != "":
		e.Reason = "can be written by others"
	default:
		return nil
	}
	return e
}

// foreign is the answer to what is not ours and, if it were, would need change.
func (n node) foreign(file, change string) *Error {
	e := &Error{File: file, Path: n.path, Reason: "belongs to another user, " + accountName(n.uid), Mend: n.take(change)}
	switch {
	case !userns.Unknown(n.uid):
	case int(n.uid) == os.Getuid():
		e.Reason = fmt.Sprintf("may belong to another user: this user namespace shows those that it does not know with our number, %d", n.uid)
	default:
		e.Reason = "belongs to another user, whom this user namespace does not know"
	}
	return e
}

// enterable is what the rules have against d as the directory that entry was
// found in.
func (d node) enterable(file string, entry node, readOnly func() bool) *Error {
	e := d.fault(file)
	switch {
	case e == nil, readOnly():
		return nil
	case !d.goodOwner(), d.mode&syscall.S_ISVTX == 0:
		return e // its owner can replace what is in it, sticky or not
	case !oursOrRoots(entry.uid):
		return entry.foreign(file, "")
	}
	return nil
}

// readable is what the rules have against n as the file to read.
func (n node) readable(file string) *Error {
	if !n.is(syscall.S_IFREG) {
		return &Error{File: file, Path: n.path, Reason: "is not a regular file"}
	}
	return n.fault(file)
}

// private is what stands against n as a secret of ours.
func (n node) private() *Error {
	e := &Error{File: n.path, Path: n.path}
	change := ""
	if n.mode&0o077 != 0 {
		change = "600"
	}
	switch {
	case n.is(syscall.S_IFLNK):
		e.Reason = "is a symbolic link"
	case !n.is(syscall.S_IFREG):
		e.Reason = "is not a regular file"
	case !ours(n.uid):
		return n.foreign(n.path, change)
	case change != "":
		e.Reason = fmt.Sprintf("is open to others, mode %04o", n.mode&0o777)
		e.Mend = n.chmod(change)
	default:
		return nil
	}
	return e
}

// denied is the answer to a file whose mode keeps us from reading it.
func (n node) denied(file string) *Error {
	change := ""
	if n.mode&0o400 == 0 {
		change = "u+r"
	}
	return &Error{File: file, Path: n.path, Reason: "cannot be read: permission denied", Mend: n.take(change)}
}

// closed is the answer to a directory whose mode keeps us from going on. One of
// another user may be so on purpose.
func (d node) closed(file string) *Error {
	e := &Error{File: file, Path: d.path, Reason: "cannot be entered: permission denied"}
	if ours(d.uid) {
		e.Mend = d.chmod("u+rx")
	}
	return e
}

// take is the command that makes n ours and then changes its mode, or "" if a
// person should not be told to.
func (n node) take(change string) string {
	switch {
	case ours(n.uid):
		return n.chmod(change)
	case !n.mayBeTaken():
		return ""
	}
	command := "chown "
	if n.is(syscall.S_IFLNK) {
		command += "-h "
	}
	command = sudo(false) + command + accountName(uint32(os.Getuid())) + " " + shellWord(n.path)
	if change != "" {
		command += " && " + n.chmod(change)
	}
	return command
}

// mayBeTaken is false for what can be the system's. Whoever gave themselves
// /etc/ssl would have the same done to all users.
func (n node) mayBeTaken() bool {
	if userns.Unknown(n.uid) {
		return false
	}
	if n.uid != 0 && n.uid != userns.Overflow {
		return true
	}
	home := filepath.Clean(os.Getenv("HOME"))
	return filepath.IsAbs(home) && home != "/" && strings.HasPrefix(n.path+"/", home+"/")
}

// chmod comes after a chown, if there is one.
func (n node) chmod(change string) string {
	if change == "" || userns.Unknown(n.uid) {
		return ""
	}
	return sudo(n.uid != 0) + "chmod " + change + " " + shellWord(n.path)
}

// sudo is for what an ordinary user may not do.
func sudo(allowed bool) string {
	if allowed || os.Getuid() == 0 {
		return ""
	}
	return "sudo "
}

// shellWord quotes s for a shell.
func shellWord(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./@%+,:="
	if strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
