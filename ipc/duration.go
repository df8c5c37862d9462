package ipc

import (
	"errors"
	"strconv"
	"time"
)

// MaxTimeout is the longest that a client may wait for an answer. Longer is
// cut, so that a forgotten caller does not hold a connection for days.
const MaxTimeout = time.Hour

var errDuration = errors.New("not a duration (90s, 5m, 1h30m, or bare seconds)")

// ParseDuration reads `90s`, `5m`, `1h30m`, or bare seconds. It refuses negative
// durations. One that is too long for a time.Duration is the longest that there is.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, errDuration
	}
	if isDigits(s) {
		s += "s"
	}
	d, err := time.ParseDuration(s)
	if err != nil && s[0] != '-' && isTooLong(s) {
		return 1<<63 - 1, nil
	}
	// The library's message quotes and explains in its own words; ours names
	// the accepted forms.
	if err != nil || d < 0 {
		return 0, errDuration
	}
	return d, nil
}

// isTooLong reports whether only the size of its numbers keeps s from being a
// duration.
func isTooLong(s string) bool {
	zeros := []byte(s) // not strings.Map, which would bring the tables of Unicode into the helper
	for i, b := range zeros {
		if '0' <= b && b <= '9' {
			zeros[i] = '0'
		}
	}
	_, err := time.ParseDuration(string(zeros))
	return err == nil
}

// FormatDuration writes d in milliseconds, which ParseDuration reads and a URL
// needs no escapes for.
func FormatDuration(d time.Duration) string {
	return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
}

func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
