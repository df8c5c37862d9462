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
			err = errors.New("a key is there twice")
			if t, ok := to.(*token); ok {
				*t = nil // which of the two counts is for nobody to guess
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

func (t *token) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	s := bytes.Trim(b, `"`)
	if len(b) != len(s)+2 || bytes.IndexByte(s, '\\') >= 0 { // no plain string
		var decoded string
		if err := json.Unmarshal(b, &decoded); err != nil {
			return err
		}
		s = []byte(decoded)
	}
	if len(s) == 0 || len(s) > maxToken {
		return errors.New("token is empty or too long")
	}
	if !Sendable(s) {
		return errors.New("token holds what no header may")
	}
	*t = bytes.Clone(s)
	return nil
}
