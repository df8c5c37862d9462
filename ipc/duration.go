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

// ParseDuration reads `90s`, `5m`, `1h30m`, or bare seconds. Negative
// durations are refused.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, errDuration
	}
	if isDigits(s) {
		s += "s"
	}
	d, err := time.ParseDuration(s)
	// The library's message quotes and explains in its own words; ours names
	// the accepted forms.
	if err != nil || d < 0 {
		return 0, errDuration
	}
	return d, nil
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
