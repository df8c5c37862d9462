package profile

import (
	"encoding/base64"
	"slices"
	"testing"
	"time"

	"bloq-agent/refresher"
	"bloq-agent/store"
)

func TestLitterIsOfOneEndpoint(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	old := now.Add(-time.Hour)
	f := store.Profile{ClientID: "in-use", KeysURL: "https://a/keys", Pending: []store.PendingKey{
		{ClientID: "a", Since: old, KeysURL: "https://a/keys"},
		{ClientID: "b", Since: old, KeysURL: "https://b/keys"},
		{ClientID: "unknown", Since: old},
		{ClientID: "young", Since: now.Add(-time.Second), KeysURL: "https://a/keys"},
		{ClientID: "in-use", Since: old, KeysURL: "https://a/keys"},
	}}
	f.Pending = located(f.Pending, f.KeysURL)
	f.KeysURL = "https://b/keys" // a login elsewhere changes nothing
	for url, want := range map[string][]string{"https://a/keys": {"a", "unknown"}, "https://b/keys": {"b"}, "https://c/keys": nil, "": nil} {
		if got := litter(f, url, now); !slices.Equal(got, want) {
			t.Errorf("at %s: %q, want %q", url, got, want)
		}
	}
}

func TestTheWayOutOfAKeyringNamesTheProfile(t *testing.T) {
	p := newSet(t).candidate("work")
	problem := p.storeProblem(&store.Unavailable{Store: "keyring", Reason: "no D-Bus session", Hint: store.HintFile})
	if problem.Hint != "bloq-agent login --store file --profile work" {
		t.Error(problem.Hint)
	}
}

// A token is printed as it is, so one that moves the cursor, or begins another
// header, is none: not from a program that hands over a login, not from what
// systemd kept, not from the store.
func TestATokenThatNoHeaderMayHoldIsNotGivenOut(t *testing.T) {
	part := base64.RawURLEncoding.EncodeToString
	good := part([]byte(`{"alg":"RS256"}`)) + "." + part([]byte(`{"exp":4000000000}`)) + ".c2ln"
	for _, bad := range []string{good + "\x1b[2J", good + "\r\nX-Other: 1", good + "\u202e", good + " "} {
		for name, a := range map[string]Adoption{
			"refresh": {RefreshToken: store.NewSecret([]byte(bad))},
			"access":  {RefreshToken: store.NewSecret([]byte(good)), AccessToken: store.NewSecret([]byte(bad)), IssuedAt: time.Now()},
			"account": {RefreshToken: store.NewSecret([]byte(good)), AccountToken: store.NewSecret([]byte(bad))},
		} {
			a.Store = "memory"
			_, err := newSet(t).Adopt("default", a)
			if err == nil || err.Error() != name+" token holds what no header may" {
				t.Errorf("%s: %v", name, err)
			}
		}
		clock := refresher.RuntimeClock()
		k := Kept{Token: store.NewSecret([]byte(bad)), Expiry: clock.Now().Add(time.Hour), ExpiryBoot: clock.Boottime() + time.Hour}
		if k.grant(clock) != nil {
			t.Error("it is taken from what systemd kept")
		}
		l := &login{item: store.Item{AccountToken: store.NewSecret([]byte(bad)), AccountExpiry: time.Now().Add(time.Hour)}}
		if _, _, ok := l.accountToken(time.Now()); ok {
			t.Error("it is taken from the store")
		}
	}
}
