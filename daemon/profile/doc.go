// Package profile is one profile's life: how its login is opened, exchanged,
// replaced, moved, locked and forgotten, and what it answers meanwhile.
//
// A profile is in one Phase at a time. replace is the only function that changes
// what a profile is: a login, a logout, a move, a reload, a lock, an unlock and a
// store that comes back are each a recipe for it. It halts what runs, lets the
// recipe act, starts what comes next, publishes it and wipes what was before. A
// recipe that fails leaves the profile as it was.
//
// The package promises:
//
//  1. A request for the token of a profile that serves takes no lock that another
//     goroutine holds over I/O, and touches no disk, bus or network. Status does
//     neither.
//  2. Only replace changes what a profile is.
//  3. No caller's deadline or cancellation decides what other callers see.
//  4. That an endpoint rotates, and what a login is for, is on disk in the
//     profile's record, and outlives every replacement and every restart.
//  5. Before a refresh token is spent, and before anything is written, the state
//     directory that is open is the one at its path. If it is not, nothing is
//     spent and nothing is overwritten; the answer is to restart.
//  6. State that cannot be read is an answer, never an exit.
//  7. Of two refresh tokens the newer one wins, wherever it is stored: each save
//     raises the serial in the item.
//
// It knows neither the socket nor the log. It reports by values: a Problem is why
// there is no token, an Event is what happened.
package profile
