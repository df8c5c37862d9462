// Package userns knows what the number of a user says inside a user namespace
// (user_namespaces(7)).
//
// It is a leaf, and small enough for the helper.
package userns

import (
	"os"
	"sync"
)

// Overflow is what the kernel shows in place of each user that a user namespace
// does not know. Outside of one it is the user nobody.
const Overflow = 65534

// Unknown reports whether uid may stand for any number of users, of whom one can
// be ourselves. If we have that number too, nothing that bears it is known to be
// ours.
func Unknown(uid uint32) bool { return uid == Overflow && !knowsAll() }

// knowsAll is false if nobody can be asked. A map is written once, and before
// that it is empty.
var knowsAll = sync.OnceValue(func() bool {
	users, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && string(users) == complete || hasNone
})

// complete is the uid_map in which every user keeps its number, as outside of
// user namespaces. One that is written otherwise cannot have as many.
const complete = "         0          0 4294967295\n"
