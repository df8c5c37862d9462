// Package ipc holds the words that the daemon and its clients share: the
// socket's path, routes, headers, exit codes, limits, the framing of a dialect
// request, and the JSON bodies. PROTOCOL.md beside this file is the contract
// for people; section numbers in comments refer to it.
//
// It is a leaf. The helper links it, so it imports next to nothing: neither
// net, nor fmt, nor encoding/json.
package ipc

// Routes (PROTOCOL.md section 2).
const (
	RouteToken    = "/v1/token"
	RouteAuth     = "/v1/auth"
	RouteDialect  = "/v1/dialect/" // + the dialect's name
	RouteStatus   = "/v1/status"
	RouteCallers  = "/v1/callers"
	RouteEvents   = "/v1/events"
	RouteRefresh  = "/v1/refresh"
	RouteRejected = "/v1/rejected"
	RouteAdopt    = "/v1/adopt"
	RouteForget   = "/v1/forget"
	RouteLock     = "/v1/lock"
	RouteUnlock   = "/v1/unlock"
	RouteProtect  = "/v1/protect"
	RouteStore    = "/v1/store"
)

// Headers (PROTOCOL.md section 3).
const (
	// HeaderWait on a request says how many milliseconds the caller will wait.
	HeaderWait = "Bloq-Wait"
	// HeaderExit on an answer is the exit code that a program should end with.
	HeaderExit = "Bloq-Exit"
	// HeaderStdout on a dialect's answer says how many bytes of the body are
	// for stdout; the rest is for stderr.
	HeaderStdout = "Bloq-Stdout"
)

// Exit codes of bloq-agent and bloq-token (PROTOCOL.md section 3).
const (
	ExitOK          = 0
	ExitInternal    = 1
	ExitUsage       = 2 // bad_request, unknown_profile
	ExitPerson      = 3 // needs_login, locked: a person must act
	ExitNoDaemon    = 4 // no connection to the daemon
	ExitUnavailable = 5 // no valid token now
)

// Limits (PROTOCOL.md section 5). MaxBody leaves room for a 64 KiB
// environment variable (kubectl's exec info can hold a certificate bundle)
// beside the rest of a dialect's request. Access tokens with many claims
// reach 10 KiB in practice.
const (
	MaxBody   = 128 << 10 // bytes in a request's body
	MaxHeader = 8 << 10   // bytes in a request's line and headers
	MaxAnswer = 4 << 20   // bytes of an answer that a client is willing to hold
	MaxPath   = 107       // bytes in a socket's path (sockaddr_un, unix(7))
)

// DefaultTimeoutMS is how long a client waits for an answer unless told, in
// milliseconds. The default callers of credential helpers (Bazel) give up at 10 s.
const DefaultTimeoutMS = 10_000

// A Code is the machine-readable reason of a problem (RFC 9457, member "code").
type Code string

// The codes, and nothing else.
const (
	CodeInternal       Code = "internal"
	CodeBadRequest     Code = "bad_request"
	CodeUnknownProfile Code = "unknown_profile"
	CodeNeedsLogin     Code = "needs_login"
	CodeLocked         Code = "locked"
	CodeUnavailable    Code = "unavailable"
	CodeConfiguration  Code = "configuration"
)

// Status is the HTTP status that goes with the code.
func (c Code) Status() int {
	switch c {
	case CodeBadRequest:
		return 400
	case CodeUnknownProfile:
		return 404
	case CodeNeedsLogin, CodeLocked:
		return 403
	case CodeUnavailable, CodeConfiguration:
		return 503
	}
	return 500
}

// Exit is the exit code that goes with the code.
func (c Code) Exit() int {
	switch c {
	case CodeBadRequest, CodeUnknownProfile:
		return ExitUsage
	case CodeNeedsLogin, CodeLocked:
		return ExitPerson
	case CodeUnavailable, CodeConfiguration:
		return ExitUnavailable
	}
	return ExitInternal
}
