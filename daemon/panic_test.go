package daemon

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/daemon/dialect"
	"bloq-agent/ipc"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

const panicsWith = "BLOQ_TEST_PANIC"

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
		"login":           &login{item: store.Item{RefreshToken: store.NewSecret(b())}},
		"inherited":       inherited{grant: &refresher.Grant{AccessToken: b()}},
	}
}

// A goroutine that panics prints its value to the journal, and so does one
// that has put the value into a text before.
func TestAPanicWithASecretPrintsNone(t *testing.T) {
	const secret = "canary-3f9a-token"
	if name := os.Getenv(panicsWith); name != "" {
		v := secretsOf(secret)[strings.TrimRight(name, "*!")]
		go func() {
			switch {
			case strings.HasSuffix(name, "*"):
				panic(&v)
			case strings.HasSuffix(name, "!"):
				panic(fmt.Errorf("doing it with %v: %+v", v, v))
			}
			panic(v)
		}()
		time.Sleep(10 * time.Second)
		return
	}
	for name := range secretsOf(secret) {
		for _, how := range []string{"", "*", "!"} {
			cmd := exec.Command(os.Args[0], "-test.run=^TestAPanicWithASecretPrintsNone$")
			cmd.Env = append(os.Environ(), panicsWith+"="+name+how, "GOTRACEBACK=all")
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "panic: ") {
				t.Fatalf("%s%s: no panic: %s", name, how, out)
			}
			for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), hex.EncodeToString([]byte(secret)), "99 97 110"} {
				if strings.Contains(string(out), form) {
					t.Errorf("%s%s: %s", name, how, out)
				}
			}
		}
	}
}
