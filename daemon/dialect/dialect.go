// Package dialect renders a token, or the reason why there is none, in the
// form that a tool's credential helper protocol wants.
//
// Its functions are pure: what they answer depends on their arguments alone.
package dialect

import (
	"encoding/json"
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

// A Func renders one dialect. Either problem is nil or there is no token.
type Func func(call ipc.Call, t Token, problem *ipc.Problem) Answer

var all = map[string]Func{
	"token":  plain(func(t Token) []byte { return t.Value }),
	"bearer": plain(func(t Token) []byte { return append([]byte("Bearer "), t.Value...) }),
	"header": plain(func(t Token) []byte { return append([]byte("Authorization: Bearer "), t.Value...) }),
	"json":   plain(asJSON),
}

// Lookup is the dialect called name.
func Lookup(name string) (Func, bool) {
	f, ok := all[name]
	return f, ok
}

// plain makes a dialect of a form that is one line on stdout.
func plain(form func(Token) []byte) Func {
	return func(_ ipc.Call, t Token, problem *ipc.Problem) Answer {
		if problem != nil {
			return failed(problem)
		}
		line := form(t)
		return Answer{Stdout: append(line[:len(line):len(line)], '\n')}
	}
}

func asJSON(t Token) []byte {
	// TokenAnswer has nothing that cannot be encoded.
	b, _ := json.Marshal(t.Answer())
	return b
}

// failed is for the dialects that have no words of their own for a failure.
func failed(p *ipc.Problem) Answer {
	text := "bloq-token: error: " + p.Detail + "\n"
	if p.Hint != "" {
		text += "bloq-token: hint: " + p.Hint + "\n"
	}
	return Answer{Stderr: []byte(text), Exit: p.Code.Exit()}
}
