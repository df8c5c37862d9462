//go:build !linux

package systemd

import "time"

func newDescriptorStore() descriptorStore { return nil }

func monotonic() time.Duration { return 0 }
