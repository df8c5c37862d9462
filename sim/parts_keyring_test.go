//go:build linux

package sim

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/store"
)

func TestKeyringStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeyringWorld(1)
		v := k.open()
		must(t, v.Save(t.Context(), "id", []byte("one")))
		if b, err := v.Load(t.Context(), "id"); string(b) != "one" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		if _, err := v.Load(t.Context(), "other"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%v", err)
		}
		for _, state := range []keyringState{keyringLocked, keyringNoBus, keyringDead, keyringGone, keyringRefused} {
			k.set(state)
			var u *store.Unavailable
			if _, err := v.Load(t.Context(), "id"); !errors.As(err, &u) || u.Reason != string(state) {
				t.Errorf("%v: %v", state, err)
			}
		}
		k.set(keyringFrozen)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := v.Save(ctx, "id", []byte("two")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("frozen: %v", err)
		}
		time.AfterFunc(time.Minute, func() { k.set(keyringWorking) })
		must(t, v.Delete(t.Context(), "id"))
		if len(k.ids()) != 0 {
			t.Errorf("%v", k.ids())
		}
		k.set(keyringFrozen)
		time.AfterFunc(time.Minute, v.kill)
		if err := v.Delete(t.Context(), "id"); err == nil {
			t.Error("a killed call has ended well")
		}
	})
}

func TestKeyringSaves(t *testing.T) {
	for outcome, want := range map[saveOutcome]string{saveDone: "new", saveUnheard: "new", saveDiesOld: "old", saveDiesNew: "new"} {
		synctest.Test(t, func(t *testing.T) {
			k := newKeyringWorld(1)
			v := k.open()
			must(t, v.Save(t.Context(), "id", []byte("old")))
			k.setNext(outcome)
			err := v.Save(t.Context(), "id", []byte("new"))
			if (err == nil) != (outcome == saveDone) || string(k.item("id")) != want {
				t.Errorf("%v: %v, %s", outcome, err, k.item("id"))
			}
		})
	}
}

func TestAPowerLossKeepsWhatTheKeyringHasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeyringWorld(1)
		v := k.open()
		must(t, v.Save(t.Context(), "id", []byte("new")))
		k.crash()
		if got := string(k.item("id")); got != "new" {
			t.Errorf("%q", got)
		}
		if v.Save(t.Context(), "id", nil) == nil {
			t.Error("a dead view saves")
		}
	})
}

func TestKeyringWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeyringWorld(1)
		k.set(keyringLocked)
		v := k.open()
		heard := func(c <-chan struct{}) string {
			select {
			case _, open := <-c:
				if open {
					return "signal"
				}
				return "closed"
			default:
				return ""
			}
		}
		expect := func(c <-chan struct{}, want string) {
			t.Helper()
			synctest.Wait()
			if got := heard(c); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		c, ends := v.Watch(t.Context()), v.Watch(ctx)
		expect(c, "")
		k.set(keyringWorking)
		expect(c, "signal")
		expect(ends, "signal")
		cancel()
		expect(ends, "closed")
		k.set(keyringNoBus)
		expect(c, "closed")
		if v.Watch(t.Context()) != nil {
			t.Error("a watch without a bus")
		}
		k.set(keyringWorking)
		c = v.Watch(t.Context())
		v.kill()
		expect(c, "closed")
	})
}
