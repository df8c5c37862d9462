//go:build !linux

package wake

import "context"

// Watch hears of nothing here. No refresh depends on it.
func Watch(context.Context, func(), func(string, error)) {}
