package ipc

import (
	"errors"
	"strconv"
)

// A Call is what a dialect is asked with: the words after its name, the few
// variables that it reads, and what the tool wrote to the helper's stdin.
type Call struct {
	Args  []string
	Env   []string // KEY=VALUE
	Stdin []byte
}

var errFrame = errors.New("dialect request is not well framed")

// AppendCall frames c onto b (PROTOCOL.md section 4). Each part is one letter
// ('a' argument, 'e' variable, 'i' stdin) and a netstring, so that a part may
// hold any byte and a cut request never looks whole. Stdin comes last, and its
// presence ends the request.
func AppendCall(b []byte, c Call) []byte {
	for _, a := range c.Args {
		b = appendPart(b, 'a', a)
	}
	for _, e := range c.Env {
		b = appendPart(b, 'e', e)
	}
	return appendPart(b, 'i', string(c.Stdin))
}

func appendPart(b []byte, kind byte, s string) []byte {
	b = append(b, kind)
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, ':')
	b = append(b, s...)
	return append(b, ',')
}

// ParseCall reads what AppendCall wrote and nothing else. Stdin of the result
// is a part of b.
func ParseCall(b []byte) (Call, error) {
	var c Call
	for len(b) > 0 {
		kind, part, rest, err := nextPart(b)
		if err != nil {
			return Call{}, err
		}
		b = rest
		switch kind {
		case 'a':
			if c.Env != nil {
				return Call{}, errFrame
			}
			c.Args = append(c.Args, string(part))
		case 'e':
			c.Env = append(c.Env, string(part))
		case 'i':
			if len(rest) != 0 {
				return Call{}, errFrame
			}
			c.Stdin = part
			return c, nil
		default:
			return Call{}, errFrame
		}
	}
	return Call{}, errFrame
}

func nextPart(b []byte) (kind byte, part, rest []byte, err error) {
	kind = b[0]
	n, i := 0, 1
	for ; i < len(b) && b[i] != ':'; i++ {
		// One spelling for each length: no leading zero, no sign.
		if b[i] < '0' || b[i] > '9' || (i > 1 && b[1] == '0') || n > MaxBody {
			return 0, nil, nil, errFrame
		}
		n = n*10 + int(b[i]-'0')
	}
	start := i + 1
	if i == 1 || start+n >= len(b) || b[start+n] != ',' {
		return 0, nil, nil, errFrame
	}
	return kind, b[start : start+n], b[start+n+1:], nil
}

// Lookup is the value of the variable name in c.Env, or "".
func (c Call) Lookup(name string) string {
	for _, e := range c.Env {
		if len(e) > len(name) && e[len(name)] == '=' && e[:len(name)] == name {
			return e[len(name)+1:]
		}
	}
	return ""
}
