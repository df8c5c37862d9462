package profile

import (
	"math"
	"testing"
	"time"

	"bloq-agent/refresher"
	"bloq-agent/store"
)

func TestAKeptTokenEndsByEitherClock(t *testing.T) {
	c := refresher.RuntimeClock()
	now, boot := c.Now(), c.Boottime()
	for name, tt := range map[string]struct {
		wall, boot time.Duration
		want       time.Duration
	}{
		"both":     {time.Hour, time.Hour, time.Hour},
		"set back": {10 * time.Hour, time.Minute, time.Minute},
		"slept":    {time.Minute, time.Hour, time.Minute},
		"over":     {-time.Second, time.Hour, 0},
		"over too": {time.Hour, -time.Second, 0},
	} {
		g := Kept{Token: store.NewSecret([]byte("x")), Expiry: now.Add(tt.wall), ExpiryBoot: boot + tt.boot}.grant(c)
		var left time.Duration
		if g != nil {
			left = g.Expiry.Sub(now)
		}
		if d := left - tt.want; d > time.Second || d < -time.Second {
			t.Errorf("%s: %v left, want %v", name, left, tt.want)
		}
	}
}

// A kept token whose numbers are absurd is served for a day at most, and makes no
// refresh late.
func TestAKeptTokenWithAbsurdTimes(t *testing.T) {
	c := refresher.RuntimeClock()
	first, last := time.Time{}, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	for _, issued := range []time.Time{first, c.Now(), last} {
		for _, expiry := range []time.Time{first, c.Now().Add(time.Hour), last} {
			for _, boot := range []time.Duration{math.MinInt64, time.Hour, math.MaxInt64} {
				g := Kept{Token: store.NewSecret([]byte("x")), IssuedAt: issued, Expiry: expiry, ExpiryBoot: boot}.grant(c)
				if over := expiry.IsZero() || boot < 0; over != (g == nil) {
					t.Errorf("%v, %v: %v", expiry, boot, g)
				}
				if g == nil {
					continue
				}
				left, lifetime := time.Until(g.Expiry), g.Expiry.Sub(g.IssuedAt)
				if left <= 0 || left > 24*time.Hour || lifetime < left || lifetime > 24*time.Hour {
					t.Errorf("%v to %v, %v: %v of %v are left", issued, expiry, boot, left, lifetime)
				}
				r := refresher.New(refresher.Config{Grant: g, Clock: c})
				if next := time.Until(r.Snapshot().NextAttempt()); next < 0 || next > 15*time.Hour {
					t.Errorf("%v to %v, %v: refreshed in %v", issued, expiry, boot, next)
				}
			}
		}
	}
}

// What a damaged file holds is never believed, nor quoted.
func FuzzDecodeKeptTakesWhatItWrote(f *testing.F) {
	f.Add([]byte(`[{"id":"a","generation":2,"token":"eA==","expiry":"2026-11-24T12:00:00Z"}]`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := DecodeKept(data)
		if err != nil {
			return
		}
		n := len(list)
		again, err := DecodeKept(encodeKept(list))
		if err != nil || len(again) != n {
			t.Errorf("%d of %d, %v", len(again), n, err)
		}
	})
}
