//go:build !linux

package daemon

import (
	"errors"

	"bloq-agent/refresher"
)

// newClock has nothing better here than the Go runtime's timers.
func newClock() (refresher.Clock, error) { return nil, errors.ErrUnsupported }
