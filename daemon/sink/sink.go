// Package sink keeps a token in a file, for programs that read files and
// nothing else, and runs a command when there is a new one.
//
// It promises that a reader sees the old content or the new and never a part;
// that no link, directory or other user leads a token to another place than
// the one that the configuration names; that only a file which was written here
// is ever removed; and that a command gets no secret but by reading the file.
//
// It knows neither tokens nor the socket.
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
// from the same one after somebody has changed it. It outlives a restart; the
// device's number is not part of it, because that can be another after a boot.
type ID struct {
	Inode   uint64 `json:"inode"`
	ModTime int64  `json:"mtime_ns"`
}

// ErrChanged says that a file is ours by its inode, and that somebody has written
// to it or touched it since. It may hold a token still, or what another has put
// there.
var ErrChanged = errors.New("it was changed after it was written, so it is left to you to remove")
