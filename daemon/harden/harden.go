// Package harden closes the daemon's process to the other programs of its user
// as far as the kernel can: no debugger, no reader of its memory, no core file,
// and no write outside its own directories.
//
// It promises to report what holds and not what was tried: best effort can
// succeed and do nothing.
package harden

// A State is what holds for this process.
type State struct {
	// Dumpable says that programs of the same user can read the memory.
	Dumpable  bool
	CoreLimit uint64 // bytes of a core file
	// UserNamespace says that the process lives in one: whoever made it can read
	// the memory, dumpable or not (PrivateUsers= of systemd.exec(5)).
	UserNamespace bool
}
