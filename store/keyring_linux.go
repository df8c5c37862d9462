package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
)

// The names of the Secret Service specification (freedesktop.org, 0.2).
const (
	secretsName  = "org.freedesktop.secrets"
	secretsPath  = dbus.ObjectPath("/org/freedesktop/secrets")
	loginPath    = dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
	secretsIface = "org.freedesktop.Secret.Service"
	collectIface = "org.freedesktop.Secret.Collection"
	itemIface    = "org.freedesktop.Secret.Item"
	promptIface  = "org.freedesktop.Secret.Prompt"

	noPath = dbus.ObjectPath("/") // how the service says "none"
)

// A wireSecret is the specification's Secret.
type wireSecret struct {
	Session     dbus.ObjectPath
	Parameters  []byte
	Value       []byte
	ContentType string
}

// A secretService is a connection to a bus that was checked, and what the last
// findCollection found on it. go-keyring is not used here: it connects once more by
// itself, to whatever is at the address by then, and can neither be cancelled nor
// be kept from asking a person for an unlock.
type secretService struct {
	bus        *dbus.Conn
	close      func()          // ends what the service keeps for us, too: sessions and prompts
	owner      string          // of the service's name: its address on the bus
	program    string          // that the owner is, for people
	collection dbus.ObjectPath // unlocked
	session    dbus.ObjectPath // or ""; of this owner
}

// openService connects before ctx ends, for longer than that.
func openService(ctx context.Context) (*secretService, error) {
	lasting, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, cancel)
	bus, err := connectBus(lasting)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &secretService{bus: bus, close: func() { _ = bus.Close(); cancel() }}
	if !stop() {
		s.close()
		return nil, ctx.Err()
	}
	return s, nil
}

func (s *secretService) load(ctx context.Context, id string) ([]byte, error) {
	item, err := s.find(ctx, id)
	if err != nil {
		return nil, err
	}
	// Some services keep single items locked and ask the person who reads one.
	var unlocked []dbus.ObjectPath
	if err := s.prompted(ctx, secretsPath, secretsIface+".Unlock", &unlocked, []dbus.ObjectPath{item}); err != nil {
		return nil, err
	}
	if err := s.openSession(ctx); err != nil {
		return nil, err
	}
	var secret wireSecret
	err = s.bus.Object(secretsName, item).CallWithContext(ctx, itemIface+".GetSecret", 0, s.session).Store(&secret)
	if err != nil {
		return nil, failedCall(err)
	}
	return secret.Value, nil
}

// save replaces the item. Label and attributes are those of go-keyring, which
// wrote the items of earlier versions.
func (s *secretService) save(ctx context.Context, id string, b []byte) error {
	if err := s.openSession(ctx); err != nil {
		return err
	}
	properties := map[string]dbus.Variant{
		itemIface + ".Label":      dbus.MakeVariant(fmt.Sprintf("Password for '%s' on '%s'", id, keyringService)),
		itemIface + ".Attributes": dbus.MakeVariant(attributes(id)),
	}
	var item dbus.ObjectPath
	return s.prompted(ctx, s.collection, collectIface+".CreateItem", &item,
		properties, wireSecret{s.session, []byte{}, b, "text/plain; charset=utf8"}, true)
}

func (s *secretService) delete(ctx context.Context, id string) error {
	item, err := s.find(ctx, id)
	if err != nil {
		return err
	}
	return s.prompted(ctx, item, itemIface+".Delete", nil)
}

func attributes(id string) map[string]string {
	return map[string]string{"username": id, "service": keyringService}
}

func (s *secretService) find(ctx context.Context, id string) (dbus.ObjectPath, error) {
	var items []dbus.ObjectPath
	err := s.bus.Object(secretsName, s.collection).CallWithContext(ctx, collectIface+".SearchItems", 0, attributes(id)).Store(&items)
	if err != nil {
		return "", failedCall(err)
	}
	if len(items) == 0 {
		return "", ErrNotFound
	}
	return items[0], nil
}

// openSession opens a session, unless one is open. Secrets cross the bus in clear in
// it: its server is trusted, and the service with it.
func (s *secretService) openSession(ctx context.Context) error {
	if s.session != "" {
		return nil
	}
	var none dbus.Variant
	err := s.bus.Object(secretsName, secretsPath).CallWithContext(ctx, secretsIface+".OpenSession", 0, "plain", dbus.MakeVariant("")).Store(&none, &s.session)
	if err != nil {
		return failedCall(err)
	}
	return nil
}

// prompted calls a method that may want a person's consent, and waits for it
// until ctx ends. Result is where the method's first value goes; nil if its only
// one is the prompt.
func (s *secretService) prompted(ctx context.Context, at dbus.ObjectPath, method string, result any, args ...any) error {
	var prompt dbus.ObjectPath
	into := []any{result, &prompt}
	if result == nil {
		into = into[1:]
	}
	if err := s.bus.Object(secretsName, at).CallWithContext(ctx, method, 0, args...).Store(into...); err != nil {
		return failedCall(err)
	}
	if prompt == noPath {
		return nil
	}
	answers, stop, err := signals(ctx, s.bus, []dbus.MatchOption{dbus.WithMatchObjectPath(prompt), dbus.WithMatchInterface(promptIface)}, ownerChanged)
	if err != nil {
		return err
	}
	defer stop()
	if err := s.bus.Object(secretsName, prompt).CallWithContext(ctx, promptIface+".Prompt", 0, "").Err; err != nil {
		return failedCall(err)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case signal, ok := <-answers:
			switch {
			case !ok, signal.Name == "org.freedesktop.DBus.NameOwnerChanged":
				return unavailable(reasonGone, nil)
			case signal.Path != prompt || signal.Name != promptIface+".Completed" || len(signal.Body) == 0:
				continue
			}
			if dismissed, ok := signal.Body[0].(bool); !ok || dismissed {
				return unavailable(reasonLocked, nil)
			}
			return nil
		}
	}
}

// failedCall names what a call over the bus failed with.
func failedCall(err error) error {
	var d dbus.Error
	if !errors.As(err, &d) {
		return unavailable(reasonGone, err)
	}
	switch d.Name {
	case "org.freedesktop.Secret.Error.IsLocked":
		return unavailable(reasonLocked, nil)
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner":
		return unavailable(reasonNoService, nil)
	case "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected":
		return unavailable(reasonGone, nil)
	case "org.freedesktop.DBus.Error.TimedOut", "org.freedesktop.DBus.Error.Timeout":
		return unavailable(reasonFrozen, nil)
	}
	return unavailable(reasonRefused, err)
}

var ownerChanged = []dbus.MatchOption{
	dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, secretsName),
}

// signals subscribes to what matches, until stop is called.
func signals(ctx context.Context, bus *dbus.Conn, matches ...[]dbus.MatchOption) (_ <-chan *dbus.Signal, stop func(), err error) {
	c := make(chan *dbus.Signal, 16)
	bus.Signal(c)
	stop = func() {
		bus.RemoveSignal(c)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		for _, m := range matches {
			_ = bus.RemoveMatchSignalContext(ctx, m...) // costs a few signals to nobody
		}
	}
	for _, m := range matches {
		if err := bus.AddMatchSignalContext(ctx, m...); err != nil {
			stop()
			return nil, nil, failedCall(err)
		}
	}
	return c, stop, nil
}

// Watch sends a value, until ctx ends, whenever something about the keyring may
// have changed: it was unlocked or locked, came or went, or a person has answered a
// question. It is a hint; values may be missed. It is nil if there is no bus now,
// and closed when the bus goes.
func (d *desktop) Watch(ctx context.Context) <-chan struct{} {
	ctx, cancel := context.WithCancel(ctx)         // ends the connection
	slow := time.AfterFunc(keyringTimeout, cancel) // a bus that does not answer
	c, err := connectBus(ctx)
	if err != nil {
		cancel()
		return nil
	}
	heard, _, err := signals(ctx, c,
		[]dbus.MatchOption{dbus.WithMatchInterface("org.freedesktop.DBus.Properties"), dbus.WithMatchMember("PropertiesChanged"), dbus.WithMatchPathNamespace(secretsPath)},
		[]dbus.MatchOption{dbus.WithMatchInterface(secretsIface), dbus.WithMatchPathNamespace(secretsPath)}, ownerChanged)
	if err != nil || !slow.Stop() {
		_ = c.Close()
		cancel()
		return nil
	}
	changed := make(chan struct{}, 1)
	d.mu.Lock()
	d.watchers = append(d.watchers, changed)
	d.mu.Unlock()
	go func() { // ends with the connection, which closes heard
		defer cancel()
		for range heard {
			poke(changed)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.watchers = slices.DeleteFunc(d.watchers, func(w chan struct{}) bool { return w == changed })
		close(changed)
	}()
	return changed
}
