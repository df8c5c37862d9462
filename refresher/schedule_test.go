package refresher

import (
	"testing"
	"time"
)

func TestRefreshAt(t *testing.T) {
	for _, tt := range []struct {
		lifetime time.Duration
		draw     float64
		want     time.Duration
	}{
		{time.Hour, 0, 30 * time.Minute},
		{time.Hour, 0.5, 33 * time.Minute},
		{time.Hour, 1, 36 * time.Minute},
		{20 * time.Second, 0.999999, 11999998 * time.Microsecond},
	} {
		got := refreshAfter(tt.lifetime, tt.draw)
		if diff := got - tt.want; diff < -time.Microsecond*10 || diff > time.Microsecond*10 {
			t.Errorf("refreshAfter(%v, draw %v) = %v, want %v", tt.lifetime, tt.draw, got, tt.want)
		}
	}
}

func TestBackoffWindow(t *testing.T) {
	for _, tt := range []struct {
		failures int
		valid    bool
		want     time.Duration
	}{
		{0, true, time.Second},
		{1, true, time.Second},
		{2, true, 2 * time.Second},
		{6, true, 32 * time.Second},
		{7, true, 64 * time.Second},
		{1000, true, 2 * time.Minute},
		{8, false, 128 * time.Second},
		{9, false, 256 * time.Second},
		{10, false, 5 * time.Minute},
		{1 << 30, false, 5 * time.Minute},
	} {
		if got := backoff(tt.failures, tt.valid, 1); got != tt.want {
			t.Errorf("backoff(%d, valid %v) reaches to %v, want %v", tt.failures, tt.valid, got, tt.want)
		}
		if got := backoff(tt.failures, tt.valid, 0); got != least(tt.want) {
			t.Errorf("backoff(%d, valid %v) starts at %v", tt.failures, tt.valid, got)
		}
	}
}

// least is where a window begins.
func least(window time.Duration) time.Duration {
	if window > time.Minute {
		return window * 3 / 4
	}
	return min(window/4, requestGap)
}

func TestHonour(t *testing.T) {
	for _, tt := range []struct{ retryAfter, left, want time.Duration }{
		{2 * time.Second, 30 * time.Minute, 2 * time.Second},
		{time.Millisecond, 30 * time.Minute, time.Second},
		{time.Hour, 30 * time.Minute, 10 * time.Minute},
		{time.Hour, 5 * time.Minute, 4 * time.Minute},
		{time.Hour, 30 * time.Second, 10 * time.Minute}, // nothing left to save
		{time.Hour, -time.Hour, 10 * time.Minute},
	} {
		if got := honour(tt.retryAfter, tt.left, 0); got != tt.want {
			t.Errorf("honour(%v, %v left) = %v, want %v", tt.retryAfter, tt.left, got, tt.want)
		}
		if got := honour(tt.retryAfter, tt.left, 1); got != tt.want+tt.want/10 {
			t.Errorf("honour(%v, %v left) reaches to %v", tt.retryAfter, tt.left, got)
		}
	}
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		class    Class
		refusals int
		valid    bool
		want     Class
	}{
		{Transient, 0, false, Transient},
		{NeedsLogin, 0, true, NeedsLogin},
		{Configuration, 0, true, Configuration},
		{Refused, refusedLimit - 1, false, Refused},
		{Refused, refusedLimit, true, Refused},
		{Refused, refusedLimit, false, NeedsLogin},
		{Unknown, refusedLimit, false, NeedsLogin},
	} {
		if got := verdict(tt.class, tt.refusals, tt.valid); got != tt.want {
			t.Errorf("verdict(%v, %d, %v) = %v, want %v", tt.class, tt.refusals, tt.valid, got, tt.want)
		}
	}
}

func TestTheDrawsCanBeReplaced(t *testing.T) {
	for draw, want := range map[float64]time.Duration{0: 30 * time.Minute, 0.5: 33 * time.Minute} {
		before := ReplaceDraw(func() float64 { return draw })
		now := time.Now()
		r := New(Config{Grant: &Grant{AccessToken: []byte("a"), IssuedAt: now, Expiry: now.Add(time.Hour)}})
		ReplaceDraw(before)
		if got := r.Snapshot().NextAttempt().Sub(now).Round(time.Second); got != want {
			t.Errorf("with a draw of %v it is replaced after %v, want %v", draw, got, want)
		}
	}
}
