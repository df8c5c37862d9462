//go:build linux

package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"bloq-agent/daemon/notifytest"
	"bloq-agent/daemon/profile"
	"bloq-agent/daemon/systemd"
	"bloq-agent/ipc/server"
	"bloq-agent/store"

	"github.com/rs/zerolog"
)

// systemd drops a message above 4,096 bytes. However many profiles are in trouble,
// it hears that the daemon is ready, that it has reloaded and that it stops; and a
// line of status, a few times for as many events as there are profiles.
func TestReadinessTravelsAlone(t *testing.T) {
	const profiles = 1000
	m := notifytest.New(t, 3)
	t.Setenv("NOTIFY_SOCKET", m.Path)
	dir := filepath.Dir(m.Path)
	records, err := store.OpenProfiles(dir)
	do(t, err)
	for i := range 120 {
		do(t, records.Put(store.Profile{Name: fmt.Sprintf("profile-%d", i), ID: store.NewID(), Store: "file"}))
	}
	do(t, records.Close())
	l, err := server.Listen(filepath.Join(dir, "d", "s"))
	do(t, err)
	d, err := New(Options{
		Listener: l, StateDir: dir, ConfigPath: filepath.Join(dir, "config.toml"), Log: zerolog.Nop(),
		Stores: profile.Stores{Keyring: store.NewKeyring(), Memory: store.NewMemory(), File: store.NewFile(dir, store.NewKey(dir, ""))},
	})
	do(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended, reload := make(chan error, 1), make(chan os.Signal)
	go func() { ended <- d.Run(ctx, reload) }() // ends with stop
	said := func(want ...string) func([]string) bool {
		return func(all []string) bool {
			want := want
			for _, s := range all {
				if len(want) > 0 && (s == want[0] || strings.HasSuffix(want[0], "=") && strings.HasPrefix(s, want[0])) {
					want = want[1:]
				}
			}
			return len(want) == 0
		}
	}
	m.Await(t, "that it is ready", said("READY=1", "STATUS="))
	reload <- os.Interrupt
	m.Await(t, "that it has reloaded", said("READY=1", "RELOADING=1\nMONOTONIC_USEC=", "READY=1"))
	for i := range profiles {
		narrator{d}.heardOf(profile.Event{Kind: profile.Changed, Profile: fmt.Sprintf("profile-%d", i%120)})
	}
	stop()
	do(t, <-ended)
	m.Await(t, "that it stops", said("STOPPING=1"))
	m.Await(t, "one line", func(all []string) bool {
		lines := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !strings.HasPrefix(s, "STATUS=") })
		t.Logf("%d lines of status: %s", len(lines), lines[len(lines)-1])
		if len(lines) > profiles/10 {
			t.Errorf("%d lines for %d events", len(lines), profiles)
		}
		for _, line := range lines {
			if len(line) > len("STATUS=")+systemd.MaxStatus || strings.Contains(line, "\n") || !utf8.ValidString(line) {
				t.Errorf("%d bytes: %q", len(line), line)
			}
		}
		return true
	})
}

// Of more profiles than fit, the line says how many are in which state, and then
// those in trouble.
func TestALineOfMoreThanFits(t *testing.T) {
	parts := []string{"work: " + strings.Repeat("é", 1000)}
	for i := range 100 {
		parts = append(parts, fmt.Sprintf("p%d: fresh, next refresh 12:00:00", i))
	}
	line := abridge(map[string]int{"fresh": 100, "needs login": 1}, parts)
	if !strings.HasPrefix(line, "profiles: 1 needs login, 100 fresh; work: éé") || !strings.HasSuffix(line, " more") ||
		!utf8.ValidString(line) || len(line) > systemd.MaxStatus || len(line) < systemd.MaxStatus*9/10 {
		t.Errorf("%d bytes: %s", len(line), line)
	}
}
