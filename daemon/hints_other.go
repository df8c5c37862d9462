//go:build !linux

package daemon

import "context"

// watchHints has nobody to listen to here; nothing depends on it.
func (d *Daemon) watchHints(context.Context) {}
