package daemon

import (
	"testing"

	"bloq-agent/accounts"
	"bloq-agent/daemon/dialect"
	"bloq-agent/ipc"
	"bloq-agent/refresher"
	"bloq-agent/store"
	"bloq-agent/store/storetest"
)

// secretsOf are values of every type that carries a secret through the daemon.
func secretsOf(secret string) map[string]any {
	b := func() []byte { return []byte(secret) }
	return map[string]any{
		"store.Secret":    store.NewSecret(b()),
		"store.Item":      store.Item{RefreshToken: store.NewSecret(b()), ClientSecret: store.NewSecret(b()), AccountToken: store.NewSecret(b())},
		"refresher.Token": refresher.Token{Value: b()},
		"refresher.Grant": refresher.Grant{AccessToken: b(), RefreshToken: b()},
		"dialect.Token":   dialect.Token{Value: b()},
		"accounts.Grant":  accounts.Grant{AccessToken: b(), RefreshToken: b()},
		"accounts.Key":    accounts.Key{ID: "id", Secret: b()},
		"ipc.Text":        ipc.Text(secret),
		"ipc.Adopt":       ipc.Adopt{RefreshToken: b(), AccessToken: b(), ClientSecret: b(), AccountToken: b()},
		"ipc.TokenAnswer": ipc.TokenAnswer{Token: b()},
		"ipc.Passphrase":  ipc.Passphrase{Passphrase: b()},
	}
}

// A goroutine that panics prints its value to the journal, and so does one that
// has put the value into a text before.
func TestAPanicWithASecretPrintsNone(t *testing.T) {
	const secret = "canary-3f9a-token"
	storetest.PanicsTellNothing(t, secret, secretsOf(secret))
}
