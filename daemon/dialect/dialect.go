// Package dialect speaks the credential helper protocols of other tools: it
// reads what a tool asks, and renders a token, or the reason why there is none,
// in the words that the tool understands.
//
// Its functions are pure: what they answer depends on their arguments alone.
// They promise that nothing is offered to a server that the tool names unless
// the daemon has looked it up among the profile's hosts (see Hosts), and that
// what a tool sends never reaches a terminal unquoted.
package dialect

import (
	"encoding/json"
	"fmt"
	"time"

	"bloq-agent/ipc"
)

// A Token is what there is to render. Value must not be modified.
type Token struct {
	Profile    string
	Value      []byte
	IssuedAt   time.Time
	Expiry     time.Time
	RefreshAt  time.Time
	Generation uint64
	Stale      bool
}

// Format keeps the token out of every log.
func (t Token) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "token(%s, generation %d)", t.Profile, t.Generation)
}

// Answer is the token as the routes' JSON has it.
func (t Token) Answer() ipc.TokenAnswer {
	return ipc.TokenAnswer{
		Profile: t.Profile, Token: ipc.Text(t.Value), TokenType: "Bearer", Generation: t.Generation, Stale: t.Stale,
		IssuedAt: t.IssuedAt.UTC(), ExpiresAt: t.Expiry.UTC(), RefreshAt: t.RefreshAt.UTC(),
	}
}

// An Answer is what the helper writes and the code it exits with.
type Answer struct {
	Stdout, Stderr []byte
	Exit           int
}

// A Question is what a tool asks.
type Question struct {
	// Target is the server that the tool wants a token for. It is nil if it
	// names none; a name that makes no sense is a Target that no Hosts allow.
	Target *Target
	// AllHosts says that the answer is to name every server that it is for.
	AllHosts bool
	// Profile is the profile that the tool itself names; "" if none.
	Profile string
	// Rejected is a token that a server has refused, by the word of the tool.
	Rejected []byte

	// Hosts and Username are the profile's, for those who render.
	Hosts    Hosts
	Username string

	// What each dialect remembers of its question.
	bearer     bool   // git: it knows authtype
	user       string // git: who the URL names
	server     string // docker: the target as it was written
	apiVersion string // kubectl
}

// A Dialect is one helper protocol.
type Dialect struct {
	// ask reads a call. Where no token is needed the answer comes at once.
	ask    func(ipc.Call) (Question, *Answer)
	render func(Question, Token) []byte
	// fail renders a problem; nothing says that there is no token for the
	// question's target. Where nil, the helper's own words are used, and no
	// target is ever named.
	fail    func(Question, *ipc.Problem) Answer
	nothing func(Question) Answer
}

var all = map[string]Dialect{
	"token":     line(func(t Token) []byte { return t.Value }),
	"bearer":    line(func(t Token) []byte { return append([]byte("Bearer "), t.Value...) }),
	"header":    line(func(t Token) []byte { return append([]byte("Authorization: Bearer "), t.Value...) }),
	"json":      line(asJSON),
	"curl":      line(asCurl),
	"env":       line(asEnv),
	"git":       git,
	"kubectl":   kubectl,
	"goauth":    goauth,
	"cargo":     cargo,
	"terraform": terraform,
	"docker":    docker,
	"bazel":     bazel,
}

// Lookup is the dialect called name.
func Lookup(name string) (Dialect, bool) {
	d, ok := all[name]
	return d, ok
}

// Ask reads what a tool asks. The answer is nil unless no token is needed.
func (d Dialect) Ask(call ipc.Call) (Question, *Answer) { return d.ask(call) }

// NamesHosts reports whether the tool says which server a token is for.
func (d Dialect) NamesHosts() bool { return d.nothing != nil }

// Render answers q with t.
func (d Dialect) Render(q Question, t Token) Answer { return Answer{Stdout: d.render(q, t)} }

// Fail answers q with the reason why there is no token.
func (d Dialect) Fail(q Question, p *ipc.Problem) Answer {
	if d.fail != nil {
		return d.fail(q, p)
	}
	return failed(p)
}

// Nothing answers that there is no token for what q names, and that the tool
// had better ask somebody else. It is for dialects that name hosts.
func (d Dialect) Nothing(q Question) Answer { return d.nothing(q) }

// line makes a dialect of a form that is one line on stdout.
func line(form func(Token) []byte) Dialect {
	return Dialect{
		ask: func(ipc.Call) (Question, *Answer) { return Question{}, nil },
		render: func(_ Question, t Token) []byte {
			b := form(t)
			return append(b[:len(b):len(b)], '\n')
		},
	}
}

func asJSON(t Token) []byte {
	// TokenAnswer has nothing that cannot be encoded.
	b, _ := json.Marshal(t.Answer())
	return b
}

// failed is for the dialects that have no words of their own for a failure.
func failed(p *ipc.Problem) Answer {
	text := "bloq-token: error: " + ipc.Visible(p.Detail) + "\n"
	if p.Hint != "" {
		text += "bloq-token: hint: " + ipc.Visible(p.Hint) + "\n"
	}
	return Answer{Stderr: []byte(text), Exit: p.Code.Exit()}
}

// wrong is for a call that the dialect does not know how to read.
func wrong(detail string) *Answer {
	a := failed(&ipc.Problem{Code: ipc.CodeBadRequest, Detail: detail, Hint: "bloq-token --help"})
	return &a
}

// sentence is a problem on one line, for tools that show only one.
func sentence(p *ipc.Problem) string {
	if p.Hint == "" {
		return ipc.Visible(p.Detail)
	}
	return ipc.Visible(p.Detail + " (" + p.Hint + ")")
}
