package dialect

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"bloq-agent/ipc"
)

// git is git's credential helper protocol (gitcredentials(7), git-credential(1)).
//
// Since 2.46 git can send a bearer header, and says so. An older git is given a
// password, which it sends as Basic.
var git = Dialect{
	ask: func(call ipc.Call) (Question, *Answer) {
		if len(call.Args) != 1 {
			return Question{}, wrong("git: one of get, store, erase is wanted")
		}
		in, ok := parseGit(call.Stdin)
		if !ok {
			return Question{}, wrong("git: what came on stdin is not git's key=value")
		}
		switch call.Args[0] {
		case "get":
			if !isText(in.one("username")) {
				return Question{}, wrong("git: the user name holds a control character")
			}
			return in.question(), nil
		case "erase":
			// Only a hint: git 2.39 erases a token that it has never sent.
			q := in.question()
			q.Rejected = in.secret()
			return q, &Answer{}
		}
		// store: the daemon has it already. gitcredentials(7) wants an operation
		// that is not known to be ignored.
		return Question{}, &Answer{}
	},
	render: func(q Question, t Token) []byte {
		var b bytes.Buffer
		if q.bearer {
			b.WriteString("capability[]=authtype\nauthtype=Bearer\ncredential=")
			b.Write(t.Value)
			b.WriteString("\nephemeral=1\n")
		} else {
			b.WriteString("username=" + q.user + "\npassword=")
			b.Write(t.Value)
			b.WriteByte('\n')
		}
		b.WriteString("password_expiry_utc=" + strconv.FormatInt(t.Expiry.Unix(), 10) + "\n")
		return b.Bytes()
	},
	// Without quit, git would ask for a user and a password that do not exist.
	// It is for what only a person can mend; a network that is away may leave git
	// another helper.
	fail: func(_ Question, p *ipc.Problem) Answer {
		a := failed(p)
		if p.Code == ipc.CodeNeedsLogin || p.Code == ipc.CodeLocked {
			a.Stdout, a.Exit = []byte("quit=1\n"), 0
		}
		return a
	},
	nothing: func(Question) Answer { return Answer{} },
}

// gitInput is git's side: attributes, of which those with [] can come again.
type gitInput map[string][]string

func parseGit(b []byte) (gitInput, bool) {
	in := gitInput{}
	if bytes.IndexByte(b, 0) >= 0 {
		return nil, false
	}
	for l := range strings.Lines(string(b)) {
		l = strings.TrimSuffix(l, "\n")
		if l == "" {
			break
		}
		key, value, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			return nil, false
		}
		switch {
		case !strings.HasSuffix(key, "[]"):
			in[key] = []string{value} // the last counts
		case value == "":
			delete(in, key) // gitcredentials(7): an empty value resets the list
		default:
			in[key] = append(in[key], value)
		}
	}
	return in, true
}

func (in gitInput) one(key string) string {
	if v := in[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func (in gitInput) question() Question {
	q := Question{
		Target: target(in.one("protocol"), in.one("host")),
		bearer: slices.Contains(in["capability[]"], "authtype"),
		user:   in.one("username"),
	}
	if q.user == "" {
		q.user = "oauth2" // any will do; this is the custom
	}
	return q
}

// isText reports whether s can be a value in an answer: git ends a line at a
// newline, and other readers of its protocol at a carriage return too.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// secret is what git says was refused; nil if it does not say.
func (in gitInput) secret() []byte {
	for _, key := range []string{"credential", "password"} {
		if v := in.one(key); v != "" {
			return []byte(v)
		}
	}
	return nil
}
