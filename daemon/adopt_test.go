package daemon

import (
	"slices"
	"testing"
	"time"

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
	p := &profile{name: "work"}
	problem, _ := p.storeProblem(&store.Unavailable{Store: "keyring", Reason: "no D-Bus session", Hint: store.HintFile})
	if problem.Hint != "bloq-agent login --store file --profile work" {
		t.Error(problem.Hint)
	}
}
