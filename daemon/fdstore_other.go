//go:build !linux

package daemon

func newFDStore() fdStore { return nil }
