package profile

import (
	"testing"

	"bloq-agent/refresher"
	"bloq-agent/store"
	"bloq-agent/store/storetest"
)

// What a goroutine of this package could panic with prints no secret.
func TestAPanicWithAProfilePrintsNoSecret(t *testing.T) {
	const secret = "canary-3f9a-token"
	b := func() []byte { return []byte(secret) }
	s := func() store.Secret { return store.NewSecret(b()) }
	l := &login{item: store.Item{RefreshToken: s()}}
	from := inherited{grant: &refresher.Grant{AccessToken: b()}, unsaved: s()}
	storetest.PanicsTellNothing(t, secret, map[string]any{
		"login": l, "inherited": from, "plan": plan{login: l, from: from}, "candidate": candidate{login: l, from: from},
		"Kept": Kept{Token: s()}, "state": &state{login: l, unsaved: s()},
		"Adoption": Adoption{RefreshToken: s(), ClientSecret: s(), AccountToken: s(), AccessToken: s()},
	})
}
