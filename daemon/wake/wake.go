// Package wake tells the refreshers when to look again: at a moment that they
// wait for, which goes on counting while the machine sleeps; when the wall clock
// is set; and when the network has changed or the machine has woken up.
//
// It promises that a suspend delays nothing beyond its own length, and that no
// goroutine or timer runs while there is nothing to tell.
package wake
