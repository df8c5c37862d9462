//go:build linux && race

package sim

const raceDetector = true
