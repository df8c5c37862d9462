//go:build !linux

package store

// busIsOptional: the keychain has no bus.
const busIsOptional = true
