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

// A secretService is a connection to a bus that was checked, and the collection
// on it that was found unlocked. go-keyring is not used here: it connects once
// more by itself, to whatever is at the address by then, and can neither be
// cancelled nor be kept from asking a person for an unlock.
type secretService struct {
	bus        *dbus.Conn
	collection dbus.ObjectPath
}

func openService(ctx context.Context) (*secretService, error) {
	bus, err := connectBus(ctx)
	if err != nil {
		return nil, err
	}
	s := &secretService{bus: bus}
	if err := s.findCollection(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close ends what the service keeps for us, too: sessions and prompts.
func (s *secretService) close() { _ = s.bus.Close() }

func (desktop) Load(ctx context.Context, id string) ([]byte, error) {
	s, err := openService(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	item, err := s.find(ctx, id)
	if err != nil {
		return nil, err
	}
	// Some services keep single items locked and ask the person who reads one.
	var unlocked []dbus.ObjectPath
	if err := s.prompted(ctx, secretsPath, secretsIface+".Unlock", &unlocked, []dbus.ObjectPath{item}); err != nil {
		return nil, err
	}
	session, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	var secret wireSecret
	err = s.bus.Object(secretsName, item).CallWithContext(ctx, itemIface+".GetSecret", 0, session).Store(&secret)
	if err != nil {
		return nil, failedCall(err)
	}
	return secret.Value, nil
}

// Save replaces the item. Label and attributes are those of go-keyring,
// which wrote the items of earlier versions.
func (desktop) Save(ctx context.Context, id string, b []byte) error {
	s, err := openService(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	session, err := s.session(ctx)
	if err != nil {
		return err
	}
	properties := map[string]dbus.Variant{
		itemIface + ".Label":      dbus.MakeVariant(fmt.Sprintf("Password for '%s' on '%s'", id, keyringService)),
		itemIface + ".Attributes": dbus.MakeVariant(attributes(id)),
	}
	var item dbus.ObjectPath
	return s.prompted(ctx, s.collection, collectIface+".CreateItem", &item,
		properties, wireSecret{session, []byte{}, b, "text/plain; charset=utf8"}, true)
}

func (desktop) Delete(ctx context.Context, id string) error {
	s, err := openService(ctx)
	if err != nil {
		return err
	}
	defer s.close()
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

// session is one in which secrets cross the bus in clear: its server is trusted,
// and the service with it.
func (s *secretService) session(ctx context.Context) (dbus.ObjectPath, error) {
	var none dbus.Variant
	var session dbus.ObjectPath
	err := s.bus.Object(secretsName, secretsPath).CallWithContext(ctx, secretsIface+".OpenSession", 0, "plain", dbus.MakeVariant("")).Store(&none, &session)
	if err != nil {
		return "", failedCall(err)
	}
	return session, nil
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
	signals := make(chan *dbus.Signal, 16)
	s.bus.Signal(signals)
	if err := s.bus.AddMatchSignalContext(ctx, dbus.WithMatchObjectPath(prompt), dbus.WithMatchInterface(promptIface)); err != nil {
		return failedCall(err)
	}
	if err := s.bus.Object(secretsName, prompt).CallWithContext(ctx, promptIface+".Prompt", 0, "").Err; err != nil {
		return failedCall(err)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case signal, ok := <-signals:
			if !ok {
				return unavailable(reasonGone, nil)
			}
			if signal.Path != prompt || signal.Name != promptIface+".Completed" || len(signal.Body) == 0 {
				continue
			}
			if dismissed, ok := signal.Body[0].(bool); !ok || dismissed {
				return unavailable(reasonLocked, nil)
			}
			return nil
		}
	}
}

// findCollection looks, without ever prompting anybody or unlocking anything,
// for an unlocked collection: login, else the default.
func (s *secretService) findCollection(ctx context.Context) error {
	if err := haveService(ctx, s.bus); err != nil {
		return err
	}
	path, err := collection(ctx, s.bus)
	if err != nil {
		return err
	}
	var locked dbus.Variant
	err = s.bus.Object(secretsName, path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", dbus.FlagNoAutoStart, collectIface, "Locked").Store(&locked)
	if err != nil {
		return failedCall(err)
	}
	if is, ok := locked.Value().(bool); !ok || is {
		return unavailable(reasonLocked, nil)
	}
	s.collection = path
	return nil
}

// haveService starts the service if the bus knows how to. A service that is
// started so is locked, and does not prompt by itself.
func haveService(ctx context.Context, c *dbus.Conn) error {
	bus := c.BusObject()
	var owned bool
	if err := bus.CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, secretsName).Store(&owned); err != nil {
		return failedCall(err)
	}
	if owned {
		return nil
	}
	var names []string
	if err := bus.CallWithContext(ctx, "org.freedesktop.DBus.ListActivatableNames", 0).Store(&names); err != nil {
		return failedCall(err)
	}
	if !slices.Contains(names, secretsName) {
		return unavailable(reasonNoService, nil)
	}
	if err := bus.CallWithContext(ctx, "org.freedesktop.DBus.StartServiceByName", 0, secretsName, uint32(0)).Err; err != nil {
		return failedCall(err)
	}
	return nil
}

// collection is the one to use: login, else the default.
func collection(ctx context.Context, c *dbus.Conn) (dbus.ObjectPath, error) {
	service := c.Object(secretsName, secretsPath)
	var v dbus.Variant
	if err := service.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, secretsIface, "Collections").Store(&v); err != nil {
		return "", failedCall(err)
	}
	if paths, ok := v.Value().([]dbus.ObjectPath); ok && slices.Contains(paths, loginPath) {
		return loginPath, nil
	}
	var path dbus.ObjectPath
	if err := service.CallWithContext(ctx, secretsIface+".ReadAlias", 0, "default").Store(&path); err != nil {
		return "", failedCall(err)
	}
	if path == "/" {
		return "", unavailable(reasonNone, nil)
	}
	return path, nil
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

// Watch listens to the service's signals on a connection of its own.
func (desktop) Watch(ctx context.Context) <-chan struct{} {
	changed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(ctx)         // ends the connection
	slow := time.AfterFunc(keyringTimeout, cancel) // a bus that does not answer
	c, err := connectBus(ctx)
	if err != nil {
		cancel()
		return nil
	}
	signals := make(chan *dbus.Signal, 16)
	c.Signal(signals)
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchInterface("org.freedesktop.DBus.Properties"), dbus.WithMatchMember("PropertiesChanged"), dbus.WithMatchPathNamespace(secretsPath)},
		{dbus.WithMatchInterface(secretsIface), dbus.WithMatchPathNamespace(secretsPath)},
		{dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, secretsName)},
	} {
		if err := c.AddMatchSignalContext(ctx, match...); err != nil {
			_ = c.Close()
			cancel()
			return nil
		}
	}
	if !slow.Stop() {
		_ = c.Close()
		return nil
	}
	go func() { // ends with the connection, which closes signals
		defer cancel()
		defer close(changed)
		for range signals {
			select {
			case changed <- struct{}{}:
			default: // one is waiting already
			}
		}
	}()
	return changed
}
