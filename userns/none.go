//go:build !linux

package userns

const hasNone = true // the system has no user namespaces
