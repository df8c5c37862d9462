// Package sink keeps a token in a file, for programs that read files and
// nothing else, and runs a command when there is a new one.
//
// It promises that a reader sees the old content or the new and never a part;
// that no link, directory or other user leads a token to another place than
// the one that the configuration names; that only a file which was written here
// is ever replaced or removed; and that a command gets no secret but by reading the file.
//
// It knows profiles by their names only, and neither the socket nor the log: it
// tells what it does by an Event, and what became of it by a Status.
package sink

import (
	"errors"
	"io/fs"
	"slices"
)

// A Sink is one file, as the configuration has it.
type Sink struct {
	Profile string
	Path    string // absolute and clean
	Mode    fs.FileMode
	Format  string
	Command []string // argv; empty for none
}

// Equal reports whether s and t mean the same file with the same content.
func (s Sink) Equal(t Sink) bool {
	return s.Profile == t.Profile && s.Path == t.Path && s.Mode == t.Mode && s.Format == t.Format &&
		slices.Equal(s.Command, t.Command)
}

// An ID tells the file that Write has made from any other at the same path, and
// from the same one after somebody has changed it. It outlives a restart.
type ID struct {
	Inode   uint64 `json:"inode"`
	ModTime int64  `json:"mtime_ns"`
	home
}

// A home is the directory that a file was written in. It does not tell files
// apart, because its numbers can be others after a boot; it tells a file that was
// removed from one whose disk or directory is away.
type home struct {
	Device uint64 `json:"device,omitempty"` // 0 on a file system in memory
	Memory uint64 `json:"memory,omitempty"` // that file system, which no other is ever called; 0 if the kernel does not say
	Dir    uint64 `json:"dir,omitempty"`    // the directory's inode; 0 in an older record
}

func (id ID) same(other ID) bool { return id.Inode == other.Inode && id.ModTime == other.ModTime }

// What keeps a file from being written or removed, and only a person can mend.
var (
	// ErrForeign says that the file is somebody else's.
	ErrForeign = errors.New("is there already, and bloq-agent did not write it")
	// ErrChanged says that somebody has written to our file, or touched it. It may
	// hold a token still, or what another has put there.
	ErrChanged = errors.New("was changed after bloq-agent wrote it")
)

// What keeps a file from being looked at, that may be there again later.
var (
	ErrNoDirectory    = errors.New("its directory is not there")
	ErrOtherDirectory = errors.New("its directory is another one")
	ErrNotMounted     = errors.New("its file system is not mounted")
	ErrNoAnswer       = errors.New("its file system does not answer")
	errPart           = errors.New("a part of it is left")
)
