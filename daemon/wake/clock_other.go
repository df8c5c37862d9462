//go:build !linux

package wake

import (
	"errors"

	"bloq-agent/refresher"
)

// A Clock exists only on Linux.
type Clock struct{ refresher.Clock }

// NewClock fails. The Go runtime's timers are all that there is.
func NewClock() (*Clock, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (*Clock) Close() error { return nil }
