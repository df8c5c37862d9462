package daemon

import (
	"context"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"bloq-agent/store"

	"github.com/rs/zerolog"
)

// newDaemon is one that does not run, in directories of its own.
func newDaemon(t *testing.T) *Daemon {
	t.Helper()
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	d, err := New(Options{
		StateDir: state, ConfigPath: filepath.Join(dir, "config.toml"), Log: zerolog.Nop(),
		Stores: Stores{
			Keyring: store.NewKeyring(), Memory: store.NewMemory(),
			File: store.NewFile(state, store.NewKey(filepath.Join(dir, "key"), "")),
		},
	})
	do(t, err)
	t.Cleanup(func() {
		d.cancel()
		d.haltAll()
		d.closeClock()
		do(t, d.records.Close())
	})
	return d
}

// A spy is a store that is looked at while it saves.
type spy struct {
	store.Store
	saving func() error
}

func (s *spy) Save(ctx context.Context, id string, item store.Item) error {
	if err := s.saving(); err != nil {
		return err
	}
	return s.Store.Save(ctx, id, item)
}

// A year-long token must not rest in any place that no record names, whenever
// the daemon dies.
func TestARecordNamesEachPlaceBeforeASecretIsThere(t *testing.T) {
	for name, before := range map[string]store.Profile{
		"first login":      {},
		"from other store": {Name: "work", ID: store.NewID(), Store: "memory", TokenURL: "https://x.example"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			if before.ID != "" {
				do(t, d.records.Put(before))
			}
			p := d.profile("work")
			c := &candidate{facts: before, item: store.Item{Origin: "https://x.example", RefreshToken: store.NewSecret([]byte("x"))}}
			c.facts.Name, c.facts.Store = "work", "file"
			if before.ID == "" {
				c.facts.ID = store.NewID()
			}
			s := &spy{Store: d.options.Stores.File}
			s.saving = func() error {
				if f := d.facts("work"); f.ID != c.facts.ID || f.Store != before.Store || f.Leftover != "file" {
					t.Errorf("the record while the secret is saved: %+v", f)
				}
				return syscall.ENOSPC
			}
			if problem := d.keep(t.Context(), p, c, s); problem == nil {
				t.Error("a failed save was taken for one")
			}
			if f, known := d.records.Lookup("work"); known != (before.ID != "") || !reflect.DeepEqual(f, before) {
				t.Errorf("after a save that failed: %+v", f)
			}
			s.saving = func() error { return nil }
			if problem := d.keep(t.Context(), p, c, s); problem != nil {
				t.Error(problem)
			}
			if f := d.facts("work"); f.Store != "file" || f.Leftover != before.Store {
				t.Errorf("after the save: %+v", f)
			}
		})
	}
}

// A liar gives back another login than it was given.
type liar struct{ store.Store }

func (l liar) Load(ctx context.Context, id string) (store.Item, error) {
	item, err := l.Store.Load(ctx, id)
	item.RefreshToken = store.NewSecret([]byte("another"))
	return item, err
}

// A move reads back what it has written before anything is dropped.
func TestAMoveToAStoreThatGivesBackAnotherLoginIsRefused(t *testing.T) {
	d := newDaemon(t)
	facts := store.Profile{Name: "work", ID: store.NewID(), Store: "memory", TokenURL: "https://x.example"}
	do(t, d.records.Put(facts))
	old := &state{facts: facts, login: &login{
		store: d.options.Stores.Memory, id: facts.ID,
		item: store.Item{Origin: "https://x.example", RefreshToken: store.NewSecret([]byte("x"))},
	}}
	if _, err := d.copyTo(t.Context(), old, liar{d.options.Stores.File}); err == nil {
		t.Error("it was taken for moved")
	}
	if f := d.facts("work"); f.Store != "memory" || f.Leftover != "file" {
		t.Errorf("the record: %+v", f)
	}
	if _, err := d.copyTo(t.Context(), old, d.options.Stores.File); err != nil {
		t.Error(err)
	}
	if f := d.facts("work"); f.Store != "file" || f.Leftover != "memory" {
		t.Errorf("the record: %+v", f)
	}
}
