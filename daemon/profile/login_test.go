package profile

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/accounts"
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

// A login hands over a token that has lived for a while: as long as the keyring
// took, say.
func TestAnAdoptedTokenEndsAtItsExp(t *testing.T) {
	iat := time.Unix(1_800_000_000, 0)
	token := []byte(jwtOf(t, map[string]any{"iat": iat.Unix(), "exp": iat.Unix() + 3600}))
	for _, tt := range []struct{ sent, now time.Duration }{
		{0, 0}, {900 * time.Millisecond, 950 * time.Millisecond}, {200 * time.Millisecond, 40 * time.Second}, {time.Minute, 500 * time.Millisecond},
	} {
		g := grantAt(token, iat.Add(tt.sent), iat.Add(tt.now))
		if !g.Expiry.Equal(iat.Add(time.Hour)) {
			t.Errorf("sent %v and adopted %v after iat: served until %v after exp", tt.sent, tt.now, g.Expiry.Sub(iat)-time.Hour)
		}
	}
	// The endpoint's clock is an hour off; ours alone counts.
	if g := grantAt(token, iat.Add(-time.Hour), iat.Add(-time.Hour+time.Second)); g.Expiry.Sub(iat) != 0 {
		t.Errorf("served until %v", g.Expiry)
	}
}

func jwtOf(t *testing.T, claims map[string]any) string {
	t.Helper()
	b, err := json.Marshal(claims)
	do(t, err)
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"none"}`)) + "." + enc(b) + "."
}

// Secrets stay where they are while the configuration names another origin than
// theirs.
func TestALoginIsOfOneOrigin(t *testing.T) {
	for _, tt := range []struct {
		origin string
		want   Phase
	}{
		{"http://127.0.0.1:1", Serving},
		{"", Serving}, // a credential's
		{"http://127.0.0.1:2", Refused},
	} {
		s := newSet(t)
		p := s.put(t, "work", "file", store.Item{Origin: tt.origin, RefreshToken: store.NewSecret([]byte("x"))},
			accounts.FromAccountsURL("http://127.0.0.1:1"))
		s.Start()
		if st := p.state.Load(); st.phase != tt.want || (st.login != nil) != (tt.want == Serving) {
			t.Errorf("%q: phase %d, %v", tt.origin, st.phase, st.problem)
		}
	}
}

// Whoever logs out leaves nothing in the store, and nothing on record.
func TestForgetDeletesTheSecrets(t *testing.T) {
	for _, name := range []string{"file", "memory"} {
		s := newSet(t)
		p := s.serve(t, "work", name, "refresh token")
		id := p.record().ID
		do(t, p.Forget())
		st, err := s.stores.Named(name, "work")
		do(t, err)
		if _, err := st.Load(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
		if r := p.record(); r.ID != "" || p.state.Load().phase != Absent {
			t.Errorf("%s: phase %d, %+v", name, p.state.Load().phase, r)
		}
	}
}
