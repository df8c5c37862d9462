package daemon

import (
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

// keep gives the rig's login its client keys, as --keep-client-secret does.
func (r *rig) keep(t *testing.T) {
	t.Helper()
	account, err := r.log.client.Login(t.Context(), r.api.Email(), []byte(r.api.Password()))
	if err != nil {
		t.Fatal(err)
	}
	key, err := r.log.client.CreateKey(t.Context(), account.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.log.item.ClientID, r.log.item.ClientSecret = key.ID, store.NewSecret(key.Secret)
}

// Log in once, for years: three, with a refresh token that lasts one.
func TestKeptClientKeysOutliveTheRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newRig(t, sandbox.Config{Rotation: sandbox.Rotation{}, AccessTTL: 24 * time.Hour})
		rig.keep(t)
		start := time.Now()
		for time.Since(start) < 3*365*24*time.Hour {
			if _, err := rig.r.Token(t.Context(), 0); err != nil {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
			time.Sleep(24 * time.Hour)
		}
		s := rig.api.Stats()
		t.Logf("3 years: %d refreshes, %d refresh tokens bought", s.Grants["refreshToken"], s.Grants["clientCredentials"])
		if bought := s.Grants["clientCredentials"] - 1; bought != 3 {
			t.Errorf("%d successors in three years; want one 30 days before each end", bought)
		}
	})
}

func TestWithoutClientKeysALoginEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newRig(t, sandbox.Config{RefreshTTL: 2 * time.Hour})
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		if s := rig.r.Snapshot(); s.Class != refresher.NeedsLogin {
			t.Errorf("%v after %d refusals", s.Class, s.Refusals)
		}
	})
}

// A dead refresh token is replaced: at the endpoint's explicit word at once, at
// bare refusals only when there are five in a row.
func TestADeadRefreshTokenIsReplacedByTheKeys(t *testing.T) {
	for body, want := range map[string]int{`{"error":"invalid_grant"}`: 1, ``: deadAfter} {
		synctest.Test(t, func(t *testing.T) {
			rig := newRig(t, sandbox.Config{})
			rig.keep(t)
			f := sandbox.Fault{Route: "POST /auth/token", Grant: "refreshToken", Kind: "status", Status: 401, Body: body}
			if err := rig.api.AddFault(f); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Minute)
			synctest.Wait()
			s := rig.api.Stats()
			if got := s.Grants["refreshToken"]; got != want || s.Grants["clientCredentials"] != 2 {
				t.Errorf("%q: %d refusals, %d refresh tokens bought", body, got, s.Grants["clientCredentials"]-1)
			}
			if snapshot := rig.r.Snapshot(); snapshot.Class != refresher.None || snapshot.Generation != 2 {
				t.Errorf("%q: %v, generation %d", body, snapshot.Class, snapshot.Generation)
			}
			if saved, err := rig.log.store.Load(t.Context(), rig.log.id); err != nil || saved.ClientSecret.IsZero() {
				t.Errorf("the successor was not saved with its keys: %v", err)
			}
		})
	}
}

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
