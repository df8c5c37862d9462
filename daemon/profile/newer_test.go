package profile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

// Of two refresh tokens the newer one wins: an older item that was put back in the
// store neither wipes the newest one nor is spent.
func TestAnOlderItemInTheStoreDoesNotWin(t *testing.T) {
	for name, spoil := range map[string]func(*store.Item){
		"a copy":                           func(*store.Item) {},
		"one of a credential":              func(i *store.Item) { i.Source = "another" },
		"one of before serials were kept":  func(i *store.Item) { i.Serial = 0 },
		"another token of the same serial": func(i *store.Item) { i.Serial += 2 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rig := newRig(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
				b := rig.broken(t)
				refresh := func() {
					t.Helper()
					time.Sleep(5 * time.Second) // or it is too soon
					snapshot, err := rig.r.Refresh(t.Context())
					do(t, err)
					if snapshot.Class != refresher.None {
						t.Errorf("%v: %v", snapshot.Class, snapshot.Err)
					}
				}
				refresh()
				old, err := b.Store.Load(t.Context(), rig.log.id)
				do(t, err)
				refresh()
				refresh()
				spoil(&old)
				if name == "another token of the same serial" {
					old.Serial = rig.log.copyItem().Serial
				}
				do(t, b.Store.Save(t.Context(), rig.log.id, old))
				refresh()
				if n := rig.api.Stats().Reuse; n != 0 {
					t.Errorf("%d spent tokens used again", n)
				}
			})
		})
	}
}

// A save that failed may have taken place all the same. What it left in the store
// is older than the token that the next exchange brought, whose save failed too.
func TestWhatASaveThatFailedHasLeftIsOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newRig(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
		b := rig.broken(t)
		rig.log.store = &lateStore{b}
		rig.log.left = func() time.Duration { return 0 } // no wait for the store
		b.set(func(b *brokenStore) { b.saveErr = nil })
		_, err := rig.r.Refresh(t.Context()) // saved, and said to be not
		do(t, err)
		b.set(func(b *brokenStore) { b.saveErr = errors.New("full") })
		_, err = rig.r.Refresh(t.Context())
		do(t, err)
		newest := rig.log.copyItem().RefreshToken
		rig.log.reread(t.Context(), false)
		if !rig.log.copyItem().RefreshToken.Equal(newest) {
			t.Error("the newest token is lost")
		}
	})
}

// A lateStore says that each save has failed.
type lateStore struct{ store.Store }

func (l *lateStore) Save(ctx context.Context, id string, item store.Item) error {
	if err := l.Store.Save(ctx, id, item); err != nil {
		return err
	}
	return errors.New("the directory could not be synced")
}

// An item without a serial is tried when the endpoint has refused ours. It must be
// there still: what proves that the store can be written does not replace it.
func TestAnItemWithoutASerialIsTriedAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newRig(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
		b := rig.broken(t)
		_, err := rig.r.Refresh(t.Context())
		do(t, err)
		item := rig.log.copyItem()
		item.RefreshToken, item.Serial = store.NewSecret(rig.mint(t)), 0
		do(t, b.Store.Save(t.Context(), rig.log.id, item))
		do(t, rig.api.AddFault(sandbox.Fault{
			Route: "POST /auth/token", Grant: "refreshToken", Kind: "status", Status: 400, Body: `{"error":"invalid_grant"}`, Times: 1,
		}))
		snapshot, err := rig.r.Refresh(t.Context())
		do(t, err)
		if snapshot.Class != refresher.None {
			t.Errorf("%v: %v", snapshot.Class, snapshot.Err)
		}
	})
}

// A new login is newer than one that could not be read when it was adopted.
func TestANewLoginIsNewerThanOneThatCannotBeRead(t *testing.T) {
	e := newEndpoint(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	place := newPlace(t)
	s := place.open(t)
	p := s.logIn(t, e, "work", "file")
	for range 3 {
		do(t, p.Refresh(t.Context()))
	}
	file, key := filepath.Join(place.state(), p.record().ID+".age"), filepath.Join(place.dir, "key")
	old, err := os.ReadFile(file)
	do(t, err)
	do(t, os.Rename(key, key+".aside"))
	s.Close()
	s = place.open(t)
	s.Start()
	s.logIn(t, e, "work", "file")
	newest := s.named("work").saved(t, s.stores.File).RefreshToken
	do(t, os.RemoveAll(key))
	do(t, os.Rename(key+".aside", key))
	do(t, os.WriteFile(file, old, 0o600))
	p = s.named("work")
	do(t, p.Refresh(t.Context()))
	if l := p.state.Load().login; l.item.RefreshToken.Equal(newest) {
		t.Fatal("nothing was exchanged")
	}
	if n := e.api.Stats().Grants["refreshToken"]; n != 4 || e.api.Stats().Reuse != 0 {
		t.Errorf("%+v", e.api.Stats())
	}
	client := p.state.Load().login.client
	if _, err := client.Refresh(t.Context(), newest.Reveal()); err == nil {
		t.Error("the newest token was not the one that was spent")
	}
}
