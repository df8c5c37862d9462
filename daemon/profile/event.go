package profile

import (
	"time"

	"bloq-agent/accounts"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

// An EventKind says what happened.
type EventKind uint8

// The kinds of events, each with the fields of Event that it uses besides
// Profile.
const (
	Published     EventKind = iota // by the refresher: Previous, Current
	Changed                        // the profile has another phase or problem: Err, nil if it serves
	LoginAdopted                   // Store
	Moved                          // Store, From
	Forgotten                      //
	LockedAll                      // no Profile
	UnlockedAll                    // no Profile
	ReplyLost                      // a crash may have lost a reply of the endpoint: Since
	NotBought                      // the client keys bought no refresh token: Err
	Unusable                       // the endpoint's new refresh token cannot be used: Err
	CopyLeft                       // a copy of the login could not be deleted: Err
	NotRecorded                    // the record could not be written: Err
	NotUndone                      // a store keeps a login that was not adopted: Err
	NotReloaded                    // the configuration is not taken for now: Err
	RejectedByAPI                  // a server refused the token: it is refreshed
	StoppingWaits                  // a stop waits for Detail
	StoppingLoses                  // a stop loses the refresh token: Err, and Command would have saved it
)

// An Event is something that people or watchers should hear of. It holds no
// secret.
type Event struct {
	Kind              EventKind
	Profile           string
	Previous, Current *refresher.Snapshot
	Store, From       string
	Since, Detail     string
	Command           string
	Err               error
}

// Status is a profile at one moment.
type Status struct {
	Name      string
	Record    store.Profile
	Endpoints accounts.Endpoints
	Phase     Phase
	Problem   error // a *Problem; nil if and only if it serves
	// Snapshot is the refresher's; nil unless it serves. TokenProblem is why its last
	// exchange failed, or nil.
	Snapshot     *refresher.Snapshot
	TokenProblem error
	// Kept is the token of the daemon before, without its value, which the profile
	// answers while it waits for its store; nil if there is none.
	Kept          *refresher.Token
	Skew          time.Duration // of the endpoint's clock against ours
	Unusable      string        // a sentence on a new refresh token that cannot be used, or ""
	AccountExpiry time.Time     // zero if there is no account token
	Copies        []string      // stores that still hold a copy of the login
	// HeldInMemory says that a lock left the refresh token in memory, because it is
	// nowhere else.
	HeldInMemory bool
	// Stuck is what its refresh has been waiting for unusually long, in words, or "".
	Stuck string
}
