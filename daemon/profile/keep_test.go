package profile

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/store"
)

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

// A year-long token must not be stored in a place that no record names, whenever
// the daemon dies.
func TestARecordNamesEachPlaceBeforeASecretIsThere(t *testing.T) {
	e := accounts.FromAccountsURL("http://127.0.0.1:1")
	for name, before := range map[string]string{"first login": "", "from other store": "memory", "in its place": "file"} {
		t.Run(name, func(t *testing.T) {
			set := newSet(t)
			if before != "" {
				set.put(t, "work", before, store.Item{Origin: "http://127.0.0.1:1", RefreshToken: store.NewSecret([]byte("x"))}, e)
				set.Start()
			}
			p := set.candidate("work")
			old := p.record()
			next, err := p.propose(Adoption{URLs: e, Store: "file"})
			do(t, err)
			s := &spy{Store: next.store}
			next.store = s
			s.saving = func() error {
				r := p.record()
				if r.ID != next.record.ID || r.Store != before || before != "file" && !slices.Contains(r.Leftovers, "file") {
					t.Errorf("the record while the secret is saved: %+v", r)
				}
				return syscall.ENOSPC
			}
			a := Adoption{RefreshToken: store.NewSecret([]byte("x")), AccessToken: store.NewSecret([]byte("a")), IssuedAt: time.Now()}
			if _, err := p.adopt(p.state.Load(), next, a); err == nil {
				t.Error("a failed save was taken for one")
			}
			if r := p.record(); !reflect.DeepEqual(r, old) {
				t.Errorf("after a save that failed: %+v, before it %+v", r, old)
			}
			s.saving = func() error { return nil }
			if _, err := p.adopt(p.state.Load(), next, a); err != nil {
				t.Error(err)
			}
			want := []string(nil)
			if before == "memory" {
				want = []string{"memory"}
			}
			if r := p.record(); r.Store != "file" || !slices.Equal(r.Leftovers, want) {
				t.Errorf("after the save: %+v", r)
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
	set := newSet(t)
	p := set.put(t, "work", "memory", store.Item{Origin: "http://127.0.0.1:1", RefreshToken: store.NewSecret([]byte("x"))},
		accounts.FromAccountsURL("http://127.0.0.1:1"))
	set.Start()
	if _, err := copyTo(p, liar{set.stores.File}, p.state.Load()); err == nil {
		t.Error("it was taken for moved")
	}
	if r := p.record(); r.Store != "memory" || len(r.Leftovers) != 0 {
		t.Errorf("the record: %+v", r)
	}
	if _, err := set.stores.File.Load(t.Context(), p.record().ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a copy is left: %v", err)
	}
	if _, err := copyTo(p, set.stores.File, p.state.Load()); err != nil {
		t.Error(err)
	}
	if r := p.record(); r.Store != "file" || !slices.Equal(r.Leftovers, []string{"memory"}) {
		t.Errorf("the record: %+v", r)
	}
}
