// Package storetest says what a store.Store must do, and runs a real Secret
// Service for tests.
package storetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"bloq-agent/store"
)

// Run tests the stores that open gives, each empty.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for name, f := range map[string]func(*testing.T, store.Store){
		"missing": missing, "round trip": roundTrip, "overwrite": overwrite, "delete": remove,
		"ids apart": apart, "owners apart": owners, "hostile bytes": hostile, "bad ids": badIDs,
		"cancelled": cancelled, "concurrent": concurrent, "probe": probe,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

// ReadOnly tests a store whose items others write: item rests in it, whatever
// the id. It must do what Run wants of loading, and Delete must not reach it.
func ReadOnly(t *testing.T, s store.Store, item store.Item) {
	id := store.NewID()
	want(t, s, id, item)
	got, err := s.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	got.Wipe() // the caller's own
	want(t, s, id, item)
	for _, bad := range []string{"", "x", "../../etc/passwd", strings.ToUpper(store.NewID()), "\x00"} {
		if _, err := s.Load(t.Context(), bad); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("Load takes the id %q: %v", bad, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Load(ctx, id); err == nil {
		t.Error("Load goes on after its context has ended")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := s.Load(t.Context(), store.NewID()); err != nil || !got.Equal(item) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	wg.Wait()
	if err := s.Delete(t.Context(), id); err != nil {
		t.Errorf("Delete: %v", err)
	}
	want(t, s, id, item)
	if s.Name() == "" {
		t.Error("a store without a name")
	}
}

func secret(s string) store.Secret { return store.NewSecret([]byte(s)) }

func full() store.Item {
	return store.Item{
		Origin: "https://accounts.bloq.example", RefreshToken: secret("refresh"), ClientSecret: secret("client"),
		AccountToken: secret("account"), AccountExpiry: time.Unix(1_800_000_000, 0).UTC(),
		ClientID: "id", Source: "source",
	}
}

func save(t *testing.T, s store.Store, id string, i store.Item) {
	t.Helper()
	if err := s.Save(t.Context(), id, i); err != nil {
		t.Fatalf("Save: %v", err)
	}
}

// want loads id and compares every field, the secret ones too.
func want(t *testing.T, s store.Store, id string, i store.Item) {
	t.Helper()
	got, err := s.Load(t.Context(), id)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	if !got.Equal(i) {
		t.Errorf("what was loaded is not what was saved: %+v, %+v", got, i)
	}
}

func missing(t *testing.T, s store.Store) {
	if _, err := s.Load(t.Context(), store.NewID()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Load of nothing: %v, want ErrNotFound", err)
	}
	if err := s.Delete(t.Context(), store.NewID()); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
}

func roundTrip(t *testing.T, s store.Store) {
	for _, i := range []store.Item{full(), {Origin: "https://x.example"}, {Origin: "x", RefreshToken: secret(strings.Repeat("r", 16<<10))}} {
		id := store.NewID()
		save(t, s, id, i)
		want(t, s, id, i)
		if err := s.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func overwrite(t *testing.T, s store.Store) {
	id := store.NewID()
	save(t, s, id, full())
	next := store.Item{Origin: "https://other.example", RefreshToken: secret("next")}
	save(t, s, id, next)
	want(t, s, id, next)
}

func remove(t *testing.T, s store.Store) {
	id := store.NewID()
	save(t, s, id, full())
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), id); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Load of what was deleted: %v", err)
	}
}

func apart(t *testing.T, s store.Store) {
	a, b := store.NewID(), store.NewID()
	save(t, s, a, full())
	save(t, s, b, store.Item{Origin: "b", RefreshToken: secret("b")})
	if err := s.Delete(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	want(t, s, a, full())
}

// owners: whoever saves or loads an item may wipe it.
func owners(t *testing.T, s store.Store) {
	id := store.NewID()
	mine := full()
	save(t, s, id, mine)
	mine.Wipe()
	want(t, s, id, full())
	got, err := s.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	got.Wipe()
	want(t, s, id, full())
}

func hostile(t *testing.T, s store.Store) {
	for _, b := range []string{"a\nb\r\n", "a\x00b", `"'\`, "\xff\xfe", "  ", "ä€", "$(x)`y`"} {
		id := store.NewID()
		i := store.Item{Origin: "https://x.example", RefreshToken: secret(b)}
		save(t, s, id, i)
		want(t, s, id, i)
	}
}

func badIDs(t *testing.T, s store.Store) {
	for _, id := range []string{"", "x", "../../etc/passwd", strings.ToUpper(store.NewID()), store.NewID() + "0", "\x00"} {
		if err := s.Save(t.Context(), id, full()); err == nil {
			t.Errorf("Save takes the id %q", id)
		}
		if _, err := s.Load(t.Context(), id); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("Load takes the id %q: %v", id, err)
		}
		if err := s.Delete(t.Context(), id); err == nil {
			t.Errorf("Delete takes the id %q", id)
		}
	}
}

func cancelled(t *testing.T, s store.Store) {
	id := store.NewID()
	save(t, s, id, full())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Save(ctx, id, store.Item{}); err == nil {
		t.Error("Save goes on after its context has ended")
	}
	if _, err := s.Load(ctx, id); err == nil {
		t.Error("Load goes on after its context has ended")
	}
	if err := s.Delete(ctx, id); err == nil {
		t.Error("Delete goes on after its context has ended")
	}
	want(t, s, id, full())
}

func concurrent(t *testing.T, s store.Store) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			id := store.NewID()
			for range 5 {
				if err := s.Save(t.Context(), id, full()); err != nil {
					t.Error(err)
				}
				if got, err := s.Load(t.Context(), id); err != nil || !got.RefreshToken.Equal(full().RefreshToken) {
					t.Errorf("%v, %v", got, err)
				}
			}
			if err := s.Delete(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func probe(t *testing.T, s store.Store) {
	if err := store.Probe(t.Context(), s); err != nil {
		t.Error(err)
	}
	if s.Name() == "" {
		t.Error("a store without a name")
	}
}
