package profile

import (
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
