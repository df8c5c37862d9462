package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/godbus/dbus/v5"
)

// The names of the Secret Service specification (freedesktop.org, 0.2).
const (
	secretsName  = "org.freedesktop.secrets"
	secretsPath  = dbus.ObjectPath("/org/freedesktop/secrets")
	loginPath    = dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
	secretsIface = "org.freedesktop.Secret.Service"
	collectIface = "org.freedesktop.Secret.Collection"
)

// busAddress is the session bus's, or "". It never launches one: the D-Bus
// library would (dbus-launch), and nobody would ever unlock a keyring there.
func busAddress() string {
	if a := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); a != "" && a != "autolaunch:" {
		return a
	}
	path := fmt.Sprintf("/run/user/%d/bus", os.Getuid())
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return "unix:path=" + dbus.EscapeBusAddressValue(path)
}

// check asks the bus, without ever prompting anybody or unlocking anything,
// whether go-keyring's calls can succeed. go-keyring itself asks for an unlock
// and then waits for ever: for a person at a prompt, or for a frozen service.
func check(ctx context.Context) error {
	address := busAddress()
	if address == "" {
		return unavailable(reasonNoBus, nil)
	}
	c, err := dbus.Connect(address, dbus.WithContext(ctx))
	if err != nil {
		return unavailable(reasonGone, err)
	}
	defer func() { _ = c.Close() }()
	if err := haveService(ctx, c); err != nil {
		return err
	}
	path, err := collection(ctx, c)
	if err != nil {
		return err
	}
	var locked dbus.Variant
	err = c.Object(secretsName, path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", dbus.FlagNoAutoStart, collectIface, "Locked").Store(&locked)
	if err != nil {
		return failedCall(err)
	}
	if is, ok := locked.Value().(bool); !ok || is {
		return unavailable(reasonLocked, nil)
	}
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

// collection is the one that go-keyring takes: login, else the default.
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
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return unavailable(reasonFrozen, nil)
	}
	var d dbus.Error
	if !errors.As(err, &d) {
		return unavailable(reasonGone, err)
	}
	switch d.Name {
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner":
		return unavailable(reasonNoService, nil)
	case "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected":
		return unavailable(reasonGone, nil)
	case "org.freedesktop.DBus.Error.TimedOut", "org.freedesktop.DBus.Error.Timeout":
		return unavailable(reasonFrozen, nil)
	}
	return unavailable(reasonRefused, err)
}

// Watch sends a value, until ctx ends, whenever something about the keyring may
// have changed: it was unlocked or locked, came or went. It is a hint; values
// may be missed. It is nil if there is no bus now, and closed when the bus goes.
func (k *Keyring) Watch(ctx context.Context) <-chan struct{} {
	changed := make(chan struct{}, 1)
	address := busAddress()
	if address == "" {
		return nil
	}
	c, err := dbus.Connect(address, dbus.WithContext(ctx)) // ctx ends the connection
	if err != nil {
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
			return nil
		}
	}
	go func() { // ends with the connection, which closes signals
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
