package store_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bloq-agent/store"
	"bloq-agent/store/storetest"

	"github.com/godbus/dbus/v5"
	keyring "github.com/zalando/go-keyring"
)

// Earlier versions kept logins by go-keyring: theirs are read, and replaced.
func TestALoginOfGoKeyringIsOurs(t *testing.T) {
	s := storetest.StartSecretService(t)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", s.Address())
	k, id := store.NewKeyring(), store.NewID()
	item := store.Item{Origin: "https://x.example", RefreshToken: store.NewSecret([]byte("a year long"))}
	do(t, k.Save(t.Context(), id, item))
	theirs, err := keyring.Get("bloq-agent", id)
	do(t, err)
	do(t, k.Delete(t.Context(), id))
	do(t, keyring.Set("bloq-agent", id, theirs))
	got, err := k.Load(t.Context(), id)
	if err != nil || !got.Equal(item) {
		t.Errorf("%v, %v", got, err)
	}
	do(t, k.Save(t.Context(), id, item))
	if n := s.Items(t); n != 1 {
		t.Errorf("there are %d items", n)
	}
	do(t, k.Delete(t.Context(), id))
	if _, err := keyring.Get("bloq-agent", id); !errors.Is(err, keyring.ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
}

// A careful is a Secret Service that asks its person before it does anything, as
// KeePassXC does.
type careful struct {
	bus    *dbus.Conn
	answer string // "yes", "no", or "" for a person who is away
	asked  atomic.Int32
	value  []byte
	hold   sync.Mutex // GetSecret waits for it
}

const (
	carefulItem   = dbus.ObjectPath("/item")
	carefulPrompt = dbus.ObjectPath("/prompt")
	carefulLogin  = dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
)

type carefulSecret struct {
	Session           dbus.ObjectPath
	Parameters, Value []byte
	ContentType       string
}

func startCareful(t *testing.T, answer string) *careful {
	t.Helper()
	bus := storetest.StartBus(t, false)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", bus.Address())
	c, err := dbus.Connect(bus.Address())
	do(t, err)
	t.Cleanup(func() { _ = c.Close() })
	s := &careful{bus: c, answer: answer}
	for path, methods := range map[dbus.ObjectPath]map[string]map[string]any{
		"/org/freedesktop/secrets": {
			"org.freedesktop.DBus.Properties": {"Get": func(string, string) (dbus.Variant, *dbus.Error) {
				return dbus.MakeVariant([]dbus.ObjectPath{carefulLogin}), nil
			}},
			"org.freedesktop.Secret.Service": {
				"OpenSession": func(string, dbus.Variant) (dbus.Variant, dbus.ObjectPath, *dbus.Error) {
					return dbus.MakeVariant(""), "/session", nil
				},
				"Unlock": func([]dbus.ObjectPath) ([]dbus.ObjectPath, dbus.ObjectPath, *dbus.Error) {
					return []dbus.ObjectPath{}, carefulPrompt, nil
				},
			},
		},
		carefulLogin: {
			"org.freedesktop.DBus.Properties": {"Get": func(string, string) (dbus.Variant, *dbus.Error) { return dbus.MakeVariant(false), nil }},
			"org.freedesktop.Secret.Collection": {
				"SearchItems": func(map[string]string) ([]dbus.ObjectPath, *dbus.Error) { return []dbus.ObjectPath{carefulItem}, nil },
				"CreateItem": func(_ map[string]dbus.Variant, secret carefulSecret, _ bool) (dbus.ObjectPath, dbus.ObjectPath, *dbus.Error) {
					s.value = secret.Value
					return "/", carefulPrompt, nil
				},
			},
		},
		carefulItem: {"org.freedesktop.Secret.Item": {
			"GetSecret": func(session dbus.ObjectPath) (carefulSecret, *dbus.Error) {
				s.hold.Lock()
				defer s.hold.Unlock()
				return carefulSecret{session, nil, s.value, "text/plain"}, nil
			},
			"Delete": func() (dbus.ObjectPath, *dbus.Error) { return carefulPrompt, nil },
		}},
		carefulPrompt: {"org.freedesktop.Secret.Prompt": {"Prompt": s.prompt}},
	} {
		for name, table := range methods {
			do(t, c.ExportMethodTable(table, path, name))
		}
	}
	reply, err := c.RequestName("org.freedesktop.secrets", dbus.NameFlagDoNotQueue)
	if err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(reply, err)
	}
	return s
}

func (s *careful) prompt(string) *dbus.Error {
	s.asked.Add(1)
	if s.answer != "" {
		_ = s.bus.Emit(carefulPrompt, "org.freedesktop.Secret.Prompt.Completed", s.answer == "no", dbus.MakeVariant(""))
	}
	return nil
}

// testProgram is what the kernel calls the program of this test, which is the
// service.
func testProgram(t *testing.T) string {
	t.Helper()
	comm, err := os.ReadFile("/proc/self/comm")
	do(t, err)
	return strings.TrimSpace(string(comm))
}

func TestAServiceThatAsksItsPerson(t *testing.T) {
	item := store.Item{Origin: "https://x.example", RefreshToken: store.NewSecret([]byte("a year long"))}
	id, window := store.NewID(), testProgram(t)+"'s window"
	var k *store.Keyring
	ways := map[string]func(context.Context) error{
		"save": func(ctx context.Context) error { return k.Save(ctx, id, item) },
		"load": func(ctx context.Context) error {
			got, err := k.Load(ctx, id)
			if err == nil && !got.Equal(item) {
				return errors.New("another item")
			}
			return err
		},
		"delete": func(ctx context.Context) error { return k.Delete(ctx, id) },
	}
	for answer, want := range map[string]string{
		"yes": "", "no": "the keyring did not get your consent: " + window + " was dismissed",
		"": "the keyring is asking for your consent: answer " + window,
	} {
		s := startCareful(t, answer)
		k = store.NewKeyring()
		for n, name := range []string{"save", "load", "delete", "load"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if answer != "" {
				cancel() // the store's own bound is the same one
				ctx, cancel = t.Context(), func() {}
			}
			text := ""
			if err := ways[name](ctx); err != nil {
				text = err.Error()
			}
			cancel()
			asked := 1
			if answer == "yes" {
				asked = n + 1
			}
			if text != want || int(s.asked.Load()) != asked {
				t.Errorf("%s, and the answer is %q: %q after %d prompts, want %q", name, answer, text, s.asked.Load(), want)
			}
		}
		if answer == "no" {
			k.AskAgain()
			_ = ways["load"](t.Context())
			if n := s.asked.Load(); n != 2 {
				t.Errorf("%d prompts", n)
			}
		}
		k.Close()
	}
}

// Some services show their window while the item call runs.
func TestAnItemCallThatDoesNotReturn(t *testing.T) {
	s := startCareful(t, "yes")
	s.hold.Lock()
	item := store.Item{Origin: "https://x.example", RefreshToken: store.NewSecret([]byte("a year long"))}
	k, id := store.NewKeyring(), store.NewID()
	defer k.Close()
	do(t, k.Save(t.Context(), id, item))
	changed := k.Watch(t.Context())
	want := "the keyring is asking for your consent: answer " + testProgram(t) + "'s window"
	for range 3 {
		asks(t, soon(t, k, id), want)
	}
	if n := s.asked.Load(); n != 2 { // the save's, and one
		t.Errorf("%d prompts", n)
	}
	empty(changed)
	s.hold.Unlock()
	heard(t, changed)
	if got, err := k.Load(t.Context(), id); err != nil || !got.Equal(item) {
		t.Error(err)
	}
	if n := s.asked.Load(); n != 2 {
		t.Errorf("%d prompts: the answer that came late was not used", n)
	}
}

func TestALockEndsWhatWaits(t *testing.T) {
	s := startCareful(t, "")
	k, id := store.NewKeyring(), store.NewID()
	for n := range int32(2) {
		_ = soon(t, k, id)
		if asked := s.asked.Load(); asked != n+1 {
			t.Errorf("%d prompts", asked)
		}
		k.Close()
	}
}

func TestALockedKeyringNamesItsCollection(t *testing.T) {
	service := storetest.StartSecretService(t)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", service.Address())
	service.Lock(t)
	k := store.NewKeyring()
	defer k.Close()
	asks(t, soon(t, k, store.NewID()), "waiting for the keyring (locked): the collection Login is locked")
}

func TestWhoseWindowItIs(t *testing.T) {
	for comm, want := range map[string]string{
		"keepassxc": "KeePassXC", "kwalletd6": "kwalletd6", "": "the keyring", "xdg-dbus-proxy": "the keyring",
		"a\x1b[2J": "the keyring", "a\nb": "the keyring", "a\u202eb": "the keyring", "\xff": "the keyring", strings.Repeat("a", 65): "the keyring",
	} {
		if got := store.ProgramName(comm); got != want {
			t.Errorf("%q: %q, want %q", comm, got, want)
		}
	}
}
