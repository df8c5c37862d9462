package daemon

import (
	"testing"
	"time"
)

func TestEndWarning(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for days, want := range map[float64]int64{365: 0, 30.1: 0, 30: 30, 14.1: 30, 14: 14, 7: 7, 1.5: 7, 1: 1, 0.1: 1, -3: 1} {
		if got := endWarning(now.Add(time.Duration(days*24*float64(time.Hour))), now); got != want {
			t.Errorf("%v days before the end: %d, want %d", days, got, want)
		}
	}
	if endWarning(time.Time{}, now) != 0 {
		t.Error("an unknown end is spoken of")
	}
}
