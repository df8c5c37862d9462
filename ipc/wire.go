package ipc

import "time"

// Text is a secret on the wire: a JSON string that decodes into bytes, so that
// its holder can wipe it.
type Text []byte

// MarshalText gives the bytes as they are.
func (t Text) MarshalText() ([]byte, error) { return t, nil }

// UnmarshalText takes a copy.
func (t *Text) UnmarshalText(b []byte) error {
	*t = append(Text(nil), b...)
	return nil
}

// String and GoString keep a token out of logs and error texts.
func (t Text) String() string { return "[redacted]" }

// GoString is String, for %#v.
func (t Text) GoString() string { return "[redacted]" }

// TokenAnswer is the body of GET /v1/token. Times are RFC 3339.
type TokenAnswer struct {
	Profile    string    `json:"profile"`
	Token      Text      `json:"token"`
	TokenType  string    `json:"token_type"` // always "Bearer"
	IssuedAt   time.Time `json:"issued_at,omitzero"`
	ExpiresAt  time.Time `json:"expires_at"`
	RefreshAt  time.Time `json:"refresh_at,omitzero"`
	Generation uint64    `json:"generation"`
	// Stale says that the token is valid but lives shorter than was asked for,
	// because the refresh failed or is slow.
	Stale bool `json:"stale"`
}

// Problem is the body of every error (RFC 9457, application/problem+json).
type Problem struct {
	Type   string `json:"type"` // always "about:blank"
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   Code   `json:"code"`
	// Hint is a command that repairs it, if there is one.
	Hint string `json:"hint,omitempty"`
	// Passphrase says that unlock would go on with a passphrase.
	Passphrase bool `json:"passphrase,omitempty"`
}

// Adopt is the body of POST /v1/adopt: a login that the daemon takes over.
type Adopt struct {
	Profile     string `json:"profile"`
	Environment string `json:"environment,omitempty"`
	LoginURL    string `json:"login_url,omitempty"`
	TokenURL    string `json:"token_url,omitempty"`
	KeysURL     string `json:"keys_url,omitempty"`
	NodesURL    string `json:"nodes_url,omitempty"`
	// Hosts are the servers that tools may be given the token for, as origins;
	// entries with a star are not among them.
	Hosts    []string `json:"hosts,omitempty"`
	Store    string   `json:"store,omitempty"`
	ClientID string   `json:"client_id,omitempty"`

	RefreshToken Text `json:"refresh_token,omitempty"`
	// AccessToken came with the refresh token and saves an exchange. IssuedAt is
	// when it was asked for, by this machine's wall clock: its life has begun.
	AccessToken  Text      `json:"access_token,omitempty"`
	IssuedAt     time.Time `json:"issued_at,omitzero"`
	ClientSecret Text      `json:"client_secret,omitempty"`
	AccountToken Text      `json:"account_token,omitempty"`

	// Check asks only whether this adoption could succeed: the profile's name,
	// the URLs, and whether the store can keep a secret now. Nothing changes.
	Check bool `json:"check,omitempty"`
	// Note records the client ID with the profile and nothing more, so that a
	// login that fails half-way leaves a trace of the client keys that it made.
	Note bool `json:"note,omitempty"`
	// Deleted are pending client keys that do not exist any more.
	Deleted []string `json:"deleted_client_keys,omitempty"`
}

// Adopted is the answer to POST /v1/adopt.
type Adopted struct {
	Profile string `json:"profile"`
	Store   string `json:"store"`
	// The URLs in force for the profile: presets, flags and configuration
	// resolved. A login sends its password to LoginURL and nowhere else.
	LoginURL string `json:"login_url"`
	TokenURL string `json:"token_url"`
	KeysURL  string `json:"keys_url"`
	NodesURL string `json:"nodes_url"`
	// ClientID is the one that the profile had before, if it was another.
	PreviousClientID string `json:"previous_client_id,omitempty"`
	// Pending are client keys that failed logins left behind, for this one to
	// delete. Those that another login may be about to use are not among them.
	Pending   []string  `json:"pending_client_keys,omitempty"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// Warning says what was adopted but does not work yet.
	Warning string `json:"warning,omitempty"`
}

// Named is the body of POST /v1/refresh and /v1/forget.
type Named struct {
	Profile string `json:"profile"`
}

// Rejected is the body of POST /v1/rejected: the API has refused this token.
type Rejected struct {
	Profile string `json:"profile"`
	Token   Text   `json:"token"`
}

// RejectedAnswer is the answer: whether a refresh was started, which happens at
// most once a minute and only for the token that is served now.
type RejectedAnswer struct {
	Profile string `json:"profile"`
	Checked bool   `json:"checked"`
}

// Move is the body of POST /v1/store: the profile's secrets go to another store.
type Move struct {
	Profile string `json:"profile"`
	To      string `json:"to"`
}

// Passphrase is the body of POST /v1/unlock and /v1/protect: that of the file
// store's key. Unlock takes it only where there is one.
type Passphrase struct {
	Passphrase Text `json:"passphrase,omitempty"`
}

// Status is the body of GET /v1/status.
type Status struct {
	Version   string       `json:"version"`
	PID       int          `json:"pid"`
	StartedAt time.Time    `json:"started_at"`
	Locked    bool         `json:"locked"` // by `bloq-agent lock`
	Config    ConfigStatus `json:"config"`
	// TokensKept says whether access tokens survive a restart, and if not, why.
	TokensKept string          `json:"tokens_kept"`
	Hardening  Hardening       `json:"hardening"`
	Profiles   []ProfileStatus `json:"profiles"`
	// Unremoved are the token files that no sink of the configuration names any
	// more, and that could not be removed yet.
	Unremoved []SinkStatus `json:"unremoved,omitempty"`
}

// Hardening is what the kernel holds for the daemon's process.
type Hardening struct {
	// Dumpable says that programs of the user can read its memory.
	Dumpable  bool   `json:"dumpable"`
	CoreLimit uint64 `json:"core_limit"` // bytes of a core file
	// UserNamespace says that it lives in one, whose maker can read its memory
	// all the same.
	UserNamespace bool `json:"user_namespace,omitempty"`
	// Landlock is "ABI" and its number, or "not in force:" and the reason.
	Landlock string   `json:"landlock"`
	Writable []string `json:"writable,omitempty"` // the directories that it can write in then
	// Loopback is why the daemon cannot tell which user listens on a port of this
	// machine, or "".
	Loopback string `json:"loopback,omitempty"`
}

// ConfigStatus tells which configuration is in force.
type ConfigStatus struct {
	Path     string    `json:"path"`
	LoadedAt time.Time `json:"loaded_at"`
	// Error is why the file as it stands now was not taken; the configuration
	// before it stays in force.
	Error string `json:"error,omitempty"`
	// Unwatched is why a change of the file is only noticed after the next refresh
	// or status. It is empty if the file is watched.
	Unwatched string `json:"unwatched,omitempty"`
}

// The states of a profile.
const (
	StateFresh         = "fresh"         // a valid token, and the last refresh worked
	StateStale         = "stale"         // a valid token, but the refresh is failing
	StateUnavailable   = "unavailable"   // no valid token; it will repair itself
	StateNeedsLogin    = "needs login"   // only the person can repair it
	StateLocked        = "locked"        // the store must be unlocked, or its question be answered
	StateConfiguration = "configuration" // the configuration must be mended
)

// ProfileStatus is one profile in Status. It holds no secret.
type ProfileStatus struct {
	Profile     string `json:"profile"`
	State       string `json:"state"`
	Environment string `json:"environment,omitempty"`
	TokenURL    string `json:"token_url,omitempty"`
	LoginURL    string `json:"login_url,omitempty"`
	KeysURL     string `json:"keys_url,omitempty"`
	NodesURL    string `json:"nodes_url,omitempty"`
	// Hosts are the servers that tools may be given the token for, as origins;
	// entries with a star are not among them.
	Hosts []string `json:"hosts,omitempty"`
	Store string   `json:"store,omitempty"`
	// StoreNote says what the store does and does not protect.
	StoreNote string `json:"store_note,omitempty"`
	// Warning says where else a copy of the login is left, or that the endpoint sent
	// a refresh token that cannot be used.
	Warning  string `json:"warning,omitempty"`
	ClientID string `json:"client_id,omitempty"`
	// Pending are client keys that failed logins left behind.
	Pending       []string  `json:"pending_client_keys,omitempty"`
	Generation    uint64    `json:"generation"`
	IssuedAt      time.Time `json:"issued_at,omitzero"`
	ExpiresAt     time.Time `json:"expires_at,omitzero"`
	NextRefresh   time.Time `json:"next_refresh,omitzero"`
	RefreshExpiry time.Time `json:"refresh_token_expires_at,omitzero"`
	AccountExpiry time.Time `json:"account_token_expires_at,omitzero"`
	Failures      int       `json:"failures"` // in a row
	LastError     string    `json:"last_error,omitempty"`
	ErrorClass    string    `json:"error_class,omitempty"`
	Unsaved       bool      `json:"unsaved,omitempty"` // the refresh token could not be stored yet
	Exchanges     uint64    `json:"exchanges"`         // attempts at the token endpoint since the start
	// ClockSkew is how many seconds the endpoint's clock is ahead of ours.
	ClockSkew int64        `json:"clock_skew_seconds,omitempty"`
	Hint      string       `json:"hint,omitempty"`
	Sinks     []SinkStatus `json:"sinks,omitempty"`
}

// Refreshed is the answer of POST /v1/refresh.
type Refreshed struct {
	ProfileStatus
	// Skipped says that the token was not replaced, because callers have had it
	// replaced often a moment ago.
	Skipped bool `json:"skipped,omitempty"`
}

// SinkStatus is one file that a profile's token is kept in.
type SinkStatus struct {
	Path   string `json:"path"`
	Format string `json:"format"`
	// WrittenAt is zero if this daemon has not written the file, or has removed
	// it.
	WrittenAt time.Time `json:"written_at,omitzero"`
	// Error is why the file is not as it should be, or how its command failed.
	Error string `json:"error,omitempty"`
}

// Callers is the body of GET /v1/callers: who asked, the last one first.
type Callers struct {
	Callers []Caller `json:"callers"`
	// Refused is how many connections of other users were closed unheard.
	Refused uint64    `json:"refused"`
	Recent  []Request `json:"recent"` // the newest first
}

// A Caller is a program that asked, as far as the system says. Nothing is
// decided by it: any program of the user can run the helper.
type Caller struct {
	// Executable is a path, or the name of the process where Landlock hides that.
	Executable string            `json:"executable,omitempty"` // absent if nobody looked in time
	Unit       string            `json:"unit,omitempty"`       // of systemd
	PID        int               `json:"pid"`                  // of the last that asked
	Requests   map[string]uint64 `json:"requests"`             // by route, or dialect
	LastSeen   time.Time         `json:"last_seen"`
}

// A Request is one that was answered. It holds no secret.
type Request struct {
	Time       time.Time `json:"time"`
	PID        int       `json:"pid"`
	Executable string    `json:"executable,omitempty"` // this and Unit as in Caller
	Unit       string    `json:"unit,omitempty"`
	For        string    `json:"for,omitempty"` // the name of the program that ran the helper
	Asked      string    `json:"asked"`         // the route, or the dialect
	Profile    string    `json:"profile,omitempty"`
	Host       string    `json:"host,omitempty"` // that the tool named, with its port unless that is 443
	Answer     string    `json:"answer"`         // token, stale, nothing, ok, broken, or a problem's code
}

// Event is the data of one server-sent event of GET /v1/events.
type Event struct {
	Time    time.Time      `json:"time"`
	Event   string         `json:"event"`
	Profile string         `json:"profile,omitempty"`
	Status  *ProfileStatus `json:"status,omitempty"`
}

// Lock is the body of POST /v1/lock, which may be empty.
type Lock struct {
	// Force drops refresh tokens that only memory has, too.
	Force bool `json:"force,omitempty"`
}
