package profile

// A Phase is what a profile is doing.
type Phase uint8

// The phases.
const (
	Absent  Phase = iota // there is no login
	Opening              // its secrets have not been read yet
	Waiting              // its store cannot be used now; a goroutine looks again
	Locked               // by Set.Lock
	Refused              // its login must not be used before a person changes something
	Serving              // its refresher runs
)

// A Kind says who can mend a Problem. Each is a code of ipc/PROTOCOL.md.
type Kind uint8

// The kinds.
const (
	Internal      Kind = iota // unexpected
	BadRequest                // the request is wrong
	NeedsLogin                // only the person can mend it, by a login
	NeedsUnlock               // only the person can mend it, by an unlock
	Unavailable               // it mends itself
	Configuration             // a file, a URL or a place is wrong
)

// A Problem is why there is no token, or why a change was refused.
type Problem struct {
	Kind   Kind
	Phase  Phase // of the profile
	Detail string
	Hint   string // a command that mends it, or ""
	// Passphrase says that Unlock would go on with a passphrase.
	Passphrase bool
}

func (p *Problem) Error() string { return p.Detail }

// ErrStopping is the answer of a Set that was closed. The next daemon answers
// the question.
var ErrStopping error = stopping

var stopping = &Problem{Kind: Unavailable, Detail: "the daemon is stopping"}

func badRequest(detail string) *Problem { return &Problem{Kind: BadRequest, Detail: detail} }
