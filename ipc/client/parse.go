package client

import (
	"errors"

	"bloq-agent/ipc"
)

var errShort = errors.New("more is to come")

// parse reads a whole answer from b. It is strict where a mistake could cut a
// token: the length must be announced, once, in digits.
func parse(b []byte) (Answer, error) {
	end := headerEnd(b)
	if end < 0 {
		if len(b) > ipc.MaxAnswer {
			return Answer{}, ErrBadAnswer
		}
		return Answer{}, errShort
	}
	a := Answer{header: b[:end]}
	// "HTTP/1.0 200"
	if end < 12 || string(b[:7]) != "HTTP/1." || b[8] != ' ' {
		return Answer{}, ErrBadAnswer
	}
	var ok bool
	if a.Status, ok = digits(string(b[9:12])); !ok || a.Status < 100 {
		return Answer{}, ErrBadAnswer
	}
	length := 0
	if v := a.Header("Content-Length"); v != "" || a.Status != 204 {
		if length, ok = digits(v); !ok || length > ipc.MaxAnswer {
			return Answer{}, ErrBadAnswer
		}
	}
	body := b[end+4:]
	if len(body) < length {
		return Answer{}, errShort
	}
	a.Body = body[:length]
	return a, nil
}

func headerEnd(b []byte) int {
	for i := 0; i+3 < len(b); i++ {
		if b[i] == '\r' && b[i+1] == '\n' && b[i+2] == '\r' && b[i+3] == '\n' {
			return i
		}
	}
	return -1
}

// Header is the value of the header name, or "". Name's case does not matter.
func (a Answer) Header(name string) string {
	line := 0
	for i := 0; i <= len(a.header); i++ {
		if i < len(a.header) && a.header[i] != '\n' {
			continue
		}
		l := a.header[line:i]
		line = i + 1
		if len(l) > len(name) && l[len(name)] == ':' && sameFold(l[:len(name)], name) {
			return trim(l[len(name)+1:])
		}
	}
	return ""
}

// Number is the header name as a number of at least 0, or -1.
func (a Answer) Number(name string) int {
	if n, ok := digits(a.Header(name)); ok {
		return n
	}
	return -1
}

func sameFold(b []byte, s string) bool {
	for i := range b {
		if lower(b[i]) != lower(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func trim(b []byte) string {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	return string(b)
}

// digits reads up to 9 decimal digits, so that the result fits any int.
func digits(s string) (int, bool) {
	if s == "" || len(s) > 9 {
		return 0, false
	}
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}
