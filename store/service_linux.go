package store

import (
	"bytes"
	"context"
	"io"
	"os"
	"path"
	"slices"
	"strconv"

	"github.com/godbus/dbus/v5"
)

// findCollection looks, without ever prompting anybody or unlocking anything,
// for an unlocked collection: login, else the default.
func (s *secretService) findCollection(ctx context.Context) error {
	if err := s.findOwner(ctx); err != nil {
		return err
	}
	at, err := collection(ctx, s.bus)
	if err != nil {
		return err
	}
	locked, err := property(ctx, s.bus, at, "Locked")
	if err != nil {
		return err
	}
	if is, ok := locked.(bool); !ok || is {
		label, _ := property(ctx, s.bus, at, "Label") // an error costs only the name
		text, _ := label.(string)
		return lockedCollection(plain(text, path.Base(string(at))))
	}
	s.collection = at
	return nil
}

func property(ctx context.Context, c *dbus.Conn, collection dbus.ObjectPath, name string) (any, error) {
	var v dbus.Variant
	err := c.Object(secretsName, collection).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", dbus.FlagNoAutoStart, collectIface, name).Store(&v)
	if err != nil {
		return nil, failedCall(err)
	}
	return v.Value(), nil
}

// findOwner starts the service if the bus knows how to. A service that is started
// so is locked, and does not prompt by itself. What another owner has told us is
// forgotten.
func (s *secretService) findOwner(ctx context.Context) error {
	if err := haveService(ctx, s.bus); err != nil {
		return err
	}
	var owner string
	if err := s.bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetNameOwner", 0, secretsName).Store(&owner); err != nil {
		return failedCall(err)
	}
	if owner != s.owner {
		s.owner, s.session, s.program = owner, "", program(ctx, s.bus, owner)
	}
	return nil
}

// program is what a person calls the program at the other end, as far as the
// kernel knows it.
func program(ctx context.Context, c *dbus.Conn, owner string) string {
	var pid uint32
	if err := c.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixProcessID", 0, owner).Store(&pid); err != nil {
		return theKeyring
	}
	f, err := disk.OpenFile("/proc/"+strconv.FormatUint(uint64(pid), 10)+"/comm", os.O_RDONLY, 0)
	if err != nil {
		return theKeyring
	}
	defer func() { _ = f.Close() }()
	comm, _ := io.ReadAll(f)
	return programName(string(bytes.TrimSpace(comm)))
}

// programName does not tell a proxy of a sandbox from an unknown program.
func programName(comm string) string {
	switch {
	case comm == "keepassxc":
		return "KeePassXC"
	case comm == "xdg-dbus-proxy":
		return theKeyring
	}
	return plain(comm, theKeyring)
}

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
