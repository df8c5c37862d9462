//go:build linux

package wake

import "testing"

// NoBus points the test at a system bus that does not exist.
func NoBus(t *testing.T) { noBus(t) }

// InNewNetwork runs f in a network namespace of its own. toggle takes its
// loopback device up or down.
func InNewNetwork(t *testing.T, f func(toggle func())) {
	inNewNetwork(t, func(n network) { f(func() { n.toggle(t) }) })
}
