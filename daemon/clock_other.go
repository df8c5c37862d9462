//go:build !linux

package daemon

import (
	"errors"
	"time"

	"bloq-agent/refresher"
)

// newClock has nothing better here than the Go runtime's timers.
func newClock() (refresher.Clock, error) { return nil, errors.ErrUnsupported }

// monotonic is for systemd, which is not here.
func monotonic() time.Duration { return 0 }
