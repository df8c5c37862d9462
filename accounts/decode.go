package accounts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

func decode(op string, status int, body []byte, into answer) error {
	if err := into.decode(body); err != nil {
		e := &Error{Op: op, Class: Malformed, Err: errors.New("the answer is not what was asked for")}
		if !json.Valid(body) {
			// A captive portal answers 200 with a page of its own.
			e.Class, e.Err = Transient, fmt.Errorf("the answer (%d) is not JSON", status)
		}
		return e
	}
	return nil
}

// An answer takes what it needs of a body.
type answer interface {
	decode(body []byte) error
}

// members are those of an object, by name, and where to put them. Names must be
// exact: encoding/json would take ACCESSTOKEN for accessToken. A name that is
// there twice is refused, needed or not, for which of two tokens counts would
// be for the reader to choose.
type members map[string]any

// decode reads every member that can be read, whatever is wrong with another: a
// good refresh token must not be lost over a bad access token. The error is the
// first of them.
func (m members) decode(body []byte) error {
	if !json.Valid(body) {
		return errors.New("not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return errors.New("not an object")
	}
	var first error
	seen := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		to := m[name]
		switch {
		case seen[name]:
			// Neither of two tokens is more likely to be the right one.
			err = errTwice
			switch t := to.(type) {
			case *token:
				*t = nil
			case *optional:
				*t, err = optional{err: err}, nil
			}
		case to != nil:
			err = json.Unmarshal(value, to)
		}
		clear(value)
		seen[name] = true
		if first == nil {
			first = err
		}
	}
	return first
}

var errTwice = errors.New("it is there twice")

// A keyList is a list of client keys, without secrets.
type keyList []Key

func (l *keyList) decode(body []byte) error {
	var list []json.RawMessage
	if err := json.Unmarshal(body, &list); err != nil {
		return err
	}
	*l = make(keyList, len(list))
	for i, b := range list {
		k := &(*l)[i]
		if err := (members{"id": &k.ID, "createdAt": (*moment)(&k.CreatedAt)}).decode(b); err != nil {
			return err
		}
	}
	return nil
}

// A moment is a time that is only shown: one that cannot be read is unknown.
type moment time.Time

func (m *moment) UnmarshalJSON(b []byte) error {
	var t time.Time
	if t.UnmarshalJSON(b) == nil {
		*m = moment(t)
	}
	return nil
}

// A token goes into a header and onto the lines of other programs, so it must
// be visible ASCII. It is bytes, so that its holder can wipe it.
type token []byte

// Sendable reports whether a token is visible ASCII. It must be asked of tokens
// that come from elsewhere too: a program prints them, and they go into headers.
func Sendable(token []byte) bool {
	for _, c := range token {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

func (t token) MarshalText() ([]byte, error) { return t, nil }

// UnmarshalJSON takes null and "" for no token.
func (t *token) UnmarshalJSON(b []byte) error {
	if string(b) == "null" || string(b) == `""` {
		return nil
	}
	s := bytes.Trim(b, `"`)
	if len(b) != len(s)+2 || bytes.IndexByte(s, '\\') >= 0 { // no plain string
		var decoded string
		if err := json.Unmarshal(b, &decoded); err != nil {
			return errors.New("it is no string")
		}
		s = []byte(decoded)
	}
	if len(s) > maxToken {
		return errors.New("it is longer than 64 KiB")
	}
	if !Sendable(s) {
		return errors.New("it holds a character that no header may hold")
	}
	*t = bytes.Clone(s)
	return nil
}

// An optional token does not spoil the answer that holds it: what is wrong with it
// is in err.
type optional struct {
	token
	err error
}

func (o *optional) UnmarshalJSON(b []byte) error {
	o.err = o.token.UnmarshalJSON(b)
	return nil
}
