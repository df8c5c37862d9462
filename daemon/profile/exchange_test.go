package profile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

// A brokenStore is one whose reading and writing can be made to fail.
type brokenStore struct {
	store.Store
	mu         sync.Mutex
	loadErr    error
	failLoads  int // how many are left to fail; negative: all
	saveErr    error
	failingFor string // "" any save, else only those of another refresh token than this
}

func (b *brokenStore) set(f func(*brokenStore)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b)
}

func (b *brokenStore) Load(ctx context.Context, id string) (store.Item, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.loadErr != nil && b.failLoads != 0 {
		b.failLoads--
		return store.Item{}, b.loadErr
	}
	return b.Store.Load(ctx, id)
}

func (b *brokenStore) Save(ctx context.Context, id string, item store.Item) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.saveErr != nil && b.failingFor != string(item.RefreshToken.Reveal()) {
		return b.saveErr
	}
	return b.Store.Save(ctx, id, item)
}

// broken puts a brokenStore under the rig's login, with the login in it.
func (r *rig) broken(t *testing.T) *brokenStore {
	t.Helper()
	b := &brokenStore{Store: r.log.store}
	do(t, b.Store.Save(t.Context(), r.log.id, r.log.copyItem()))
	r.log.store = b
	return b
}

// mint buys another refresh token of the same account, as another process would.
func (r *rig) mint(t *testing.T) []byte {
	t.Helper()
	account, err := r.log.client.Login(t.Context(), r.api.Email(), []byte(r.api.Password()))
	do(t, err)
	key, err := r.log.client.CreateKey(t.Context(), account.AccessToken)
	do(t, err)
	g, err := r.log.client.ClientCredentials(t.Context(), key.ID, key.Secret)
	do(t, err)
	return g.RefreshToken
}

func TestWhatAnotherProcessSavedIsSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newRig(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
		b := rig.broken(t)
		item := rig.log.copyItem()
		item.RefreshToken = store.NewSecret(rig.mint(t))
		item.Serial++
		do(t, b.Store.Save(t.Context(), rig.log.id, item))
		before := rig.log.copyItem().RefreshToken
		_, err := rig.r.Refresh(t.Context())
		do(t, err)
		if s := rig.api.Stats(); s.Grants["refreshToken"] != 1 || s.Reuse != 0 {
			t.Errorf("%+v", s)
		}
		// The one of before was not spent: it is still good.
		if _, err := rig.log.client.Refresh(t.Context(), before.Reveal()); err != nil {
			t.Errorf("the token in memory was spent although the store had another: %v", err)
		}
	})
}

// A store that shows another token only after a refusal: another process was
// quicker by a moment.
func TestARefusalReadsTheStoreOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newRig(t, sandbox.Config{})
		b := rig.broken(t)
		item := rig.log.copyItem()
		item.RefreshToken = store.NewSecret(rig.mint(t))
		do(t, b.Store.Save(t.Context(), rig.log.id, item))
		b.set(func(b *brokenStore) { b.loadErr, b.failLoads = errors.New("busy"), 1 })
		f := sandbox.Fault{Route: "POST /auth/token", Grant: "refreshToken", Kind: "status", Status: 400, Body: `{"error":"invalid_grant"}`, Times: 1}
		do(t, rig.api.AddFault(f))
		snapshot, err := rig.r.Refresh(t.Context())
		do(t, err)
		if snapshot.Class != refresher.None {
			t.Errorf("%v: %v", snapshot.Class, snapshot.Err)
		}
		if got := rig.log.copyItem(); !got.RefreshToken.Equal(item.RefreshToken) {
			t.Error("the store's token was not adopted")
		}
	})
}

// What lies in the store for another origin is not sent to ours: neither before
// a refresh nor after a refusal.
func TestATokenOfAnotherOriginIsNotSpent(t *testing.T) {
	for _, tt := range []struct {
		origin string
		refuse bool // the first refresh is, so that the store is read once more
		spent  bool
	}{
		{"https://elsewhere.example", false, false},
		{"https://elsewhere.example", true, false},
		{"", false, true}, // a credential, which belongs to what is configured
	} {
		synctest.Test(t, func(t *testing.T) {
			rig := newRig(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
			b := rig.broken(t)
			ours := rig.log.copyItem()
			item := rig.log.copyItem()
			item.Origin, item.RefreshToken, item.Serial = tt.origin, store.NewSecret(rig.mint(t)), item.Serial+1
			do(t, b.Store.Save(t.Context(), rig.log.id, item))
			if tt.refuse {
				do(t, rig.api.AddFault(sandbox.Fault{
					Route: "POST /auth/token", Grant: "refreshToken", Kind: "status", Status: 400, Body: `{"error":"invalid_grant"}`, Times: 1,
				}))
			}
			_, _ = rig.r.Refresh(t.Context())
			if got := rig.log.copyItem().Origin; got != ours.Origin {
				t.Errorf("the login's origin has become %q", got)
			}
			// What was spent is refused now: the endpoint rotates strictly.
			if _, err := rig.log.client.Refresh(t.Context(), item.RefreshToken.Reveal()); (err != nil) != tt.spent {
				t.Errorf("%+v: the store's token was sent, or not: %v", tt, err)
			}
		})
	}
}

// A store that cannot be written holds a refresh back only where the endpoint
// rotates, and then only until 5 minutes before the token's end.
func TestAFullDiskHoldsARefreshBack(t *testing.T) {
	for _, rotates := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			rig := newRig(t, sandbox.Config{Rotation: sandbox.Rotation{On: rotates}})
			b := rig.broken(t)
			_, err := rig.r.Refresh(t.Context()) // it is seen to rotate, or not to
			do(t, err)
			start, expiry := time.Now(), rig.r.Snapshot().Expiry()
			b.set(func(b *brokenStore) { b.saveErr = syscall.ENOSPC })
			rig.net.forget()
			for time.Now().Before(start.Add(2 * time.Hour)) {
				if _, err := rig.r.Token(t.Context(), 0); err != nil {
					t.Fatalf("no token with a full disk: %v", err)
				}
				time.Sleep(time.Minute)
			}
			first := rig.net.times()[0]
			if ahead := expiry.Sub(first); rotates != (ahead <= keepBack) {
				t.Errorf("rotates %v: the first exchange came %v before the token's end", rotates, ahead)
			}
			b.set(func(b *brokenStore) { b.saveErr = nil })
			time.Sleep(31 * time.Second)
			synctest.Wait()
			saved, err := b.Store.Load(t.Context(), rig.log.id)
			if now := rig.log.copyItem(); err != nil || !saved.RefreshToken.Equal(now.RefreshToken) {
				t.Errorf("rotates %v: the disk has room again, and the token in use is not on it: %v", rotates, err)
			}
			if n := rig.api.Stats().Reuse; n != 0 {
				t.Errorf("%d spent tokens used again", n)
			}
		})
	}
}

// Whatever keeps a store from taking the rotated token: it is served, told of,
// saved as soon as that works, and the old one is never spent again.
func TestSaveFailures(t *testing.T) {
	causes := map[string]error{
		"full disk": syscall.ENOSPC, "read-only directory": syscall.EROFS, "EIO": syscall.EIO,
		"keyring locked": &store.Unavailable{Store: "keyring", Reason: "locked", Locked: true},
		"keyring gone":   &store.Unavailable{Store: "keyring", Reason: "gone"},
	}
	for name, cause := range causes {
		for _, when := range []string{"from before the exchange", "from the save on"} {
			t.Run(fmt.Sprintf("%s, %s", name, when), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { saveFailure(t, cause, when) })
			})
		}
	}
}

func saveFailure(t *testing.T, cause error, when string) {
	rig := newRig(t, sandbox.Config{Rotation: sandbox.Rotation{On: true}})
	b := rig.broken(t)
	_, err := rig.r.Refresh(t.Context())
	do(t, err)
	b.set(func(b *brokenStore) {
		b.saveErr = cause
		if when == "from the save on" {
			b.failingFor = string(rig.log.copyItem().RefreshToken.Reveal())
		} else {
			b.loadErr, b.failLoads = cause, -1
		}
	})
	// Two refreshes pass, or would.
	for end := time.Now().Add(100 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Second) {
		if _, err := rig.r.Token(t.Context(), 0); err != nil {
			t.Fatalf("no token: %v", err)
		}
	}
	if s := rig.r.Snapshot(); s.SaveErr == nil && s.Err == nil {
		t.Error("nothing tells of it")
	}
	b.set(func(b *brokenStore) { b.saveErr, b.loadErr = nil, nil })
	time.Sleep(31 * time.Second)
	synctest.Wait()
	if s := rig.r.Snapshot(); s.SaveErr != nil {
		t.Errorf("not recovered: %v", s.SaveErr)
	}
	// What a daemon that starts now would do.
	saved, err := b.Store.Load(t.Context(), rig.log.id)
	do(t, err)
	if _, err := rig.log.client.Refresh(t.Context(), saved.RefreshToken.Reveal()); err != nil {
		t.Errorf("what is in the store does not work: %v", err)
	}
	if n := rig.api.Stats().Reuse; n != 0 {
		t.Errorf("%d spent tokens used again", n)
	}
}
