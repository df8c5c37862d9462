//go:build linux

package sim

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"bloq-agent/store"
)

// A keyringState is a reason of package store, or one of the two below.
type keyringState string

const (
	keyringWorking keyringState = ""
	keyringFrozen  keyringState = "frozen" // calls wait until their context ends or it works again
	keyringLocked  keyringState = "locked"
	keyringNoBus   keyringState = "no D-Bus session" // watches end, and none can begin
	keyringDead    keyringState = "no Secret Service"
	keyringGone    keyringState = "gone"
	keyringRefused keyringState = "refused"
)

// A saveOutcome is what becomes of one Save.
type saveOutcome int

const (
	saveDone    saveOutcome = iota
	saveUnheard             // the item is taken, and the answer is lost
	saveDiesOld             // the service dies before it takes the item
	saveDiesNew             // the service dies after it took the item
)

// A keyringWorld is the machine's Secret Service. Its items outlive every daemon.
type keyringWorld struct {
	seed uint64

	mu      sync.Mutex // never held over a wait
	state   keyringState
	changed chan struct{} // closed when state changes
	items   map[string][]byte
	next    saveOutcome // of the next Save
	views   []*keyringView
}

// newKeyringWorld works and is empty. It must be called in the bubble.
func newKeyringWorld(seed uint64) *keyringWorld {
	return &keyringWorld{seed: seed, changed: make(chan struct{}), items: map[string][]byte{}}
}

// set changes the state. Watches hear of it, as they do of an unlock or of a service
// that is back; they end when the bus goes.
func (k *keyringWorld) set(state keyringState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.setLocked(state)
}

func (k *keyringWorld) setLocked(state keyringState) {
	if state == k.state {
		return
	}
	k.state = state
	close(k.changed)
	k.changed = make(chan struct{})
	for _, v := range k.views {
		for c := range v.watches {
			switch {
			case state == keyringNoBus:
				v.endLocked(c)
			case state == keyringWorking || state == keyringLocked || state == keyringDead:
				signal(c)
			}
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// item is what the keyring holds, whatever its state; nil for nothing.
func (k *keyringWorld) item(id string) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.items[id])
}

// ids is those of all items, sorted.
func (k *keyringWorld) ids() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.items))
}

// setNext decides what becomes of the next Save.
func (k *keyringWorld) setNext(outcome saveOutcome) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next = outcome
}

// crash is a power loss. It undoes no Save that was answered: gnome-keyring syncs what
// it writes.
func (k *keyringWorld) crash() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, v := range k.views {
		v.killLocked()
	}
}

// open gives a new instance its connection. It must be called in the bubble.
func (k *keyringWorld) open() *keyringView {
	k.mu.Lock()
	defer k.mu.Unlock()
	v := &keyringView{world: k, nth: len(k.views), dead: make(chan struct{}), watches: map[chan struct{}]func() bool{}}
	k.views = append(k.views, v)
	return v
}

// A keyringView is the keyring of one daemon instance. All is guarded by world.mu.
type keyringView struct {
	world   *keyringWorld
	nth     int
	dead    chan struct{}
	watches map[chan struct{}]func() bool // with what stops each one's wait for its context
}

// kill ends calls and watches of the instance.
func (v *keyringView) kill() {
	v.world.mu.Lock()
	defer v.world.mu.Unlock()
	v.killLocked()
}

func (v *keyringView) killLocked() {
	if v.killed() {
		return
	}
	close(v.dead)
	for c := range v.watches {
		v.endLocked(c)
	}
}

func (v *keyringView) killed() bool {
	select {
	case <-v.dead:
		return true
	default:
		return false
	}
}

func (v *keyringView) endLocked(c chan struct{}) {
	if stop, ok := v.watches[c]; ok {
		stop()
		delete(v.watches, c)
		close(c)
	}
}

// Watch returns nil where there is no bus, as the real one does.
func (v *keyringView) Watch(ctx context.Context) <-chan struct{} {
	v.world.mu.Lock()
	defer v.world.mu.Unlock()
	if v.world.state == keyringNoBus || v.killed() {
		return nil
	}
	c := make(chan struct{}, 1)
	v.watches[c] = context.AfterFunc(ctx, func() {
		v.world.mu.Lock()
		defer v.world.mu.Unlock()
		v.endLocked(c)
	})
	return c
}

func (v *keyringView) Load(ctx context.Context, id string) (secret []byte, err error) {
	err = v.call(ctx, "load", id, func(k *keyringWorld) error {
		there, ok := k.items[id]
		if !ok {
			return store.ErrNotFound
		}
		secret = slices.Clone(there)
		return nil
	})
	return secret, err
}

func (v *keyringView) Delete(ctx context.Context, id string) error {
	return v.call(ctx, "delete", id, func(k *keyringWorld) error {
		if _, ok := k.items[id]; !ok {
			return store.ErrNotFound
		}
		delete(k.items, id)
		return nil
	})
}

func (v *keyringView) Save(ctx context.Context, id string, secret []byte) error {
	return v.call(ctx, "save", id, func(k *keyringWorld) error {
		outcome := k.next
		k.next = saveDone
		if outcome != saveDiesOld {
			k.items[id] = slices.Clone(secret)
		}
		switch outcome {
		case saveUnheard:
			return store.KeyringError(string(keyringGone), nil)
		case saveDiesOld, saveDiesNew:
			k.setLocked(keyringDead)
			return store.KeyringError(string(keyringGone), nil)
		}
		return nil
	})
}

// call takes its time, then does f under the world's lock if the keyring works.
func (v *keyringView) call(ctx context.Context, op, id string, f func(*keyringWorld) error) error {
	select {
	case <-time.After(v.jitter(op, id)):
	case <-ctx.Done():
		return ctx.Err()
	case <-v.dead:
		return store.KeyringError(string(keyringGone), nil)
	}
	for {
		changed, err := v.try(f)
		if changed == nil {
			return err
		}
		select {
		case <-changed:
			time.Sleep(v.jitter("changed "+op, id)) // not all that waited at one instant
		case <-ctx.Done():
			return ctx.Err()
		case <-v.dead:
			return store.KeyringError(string(keyringGone), nil)
		}
	}
}

// try returns what is closed when the next try is due, while the keyring is frozen.
func (v *keyringView) try(f func(*keyringWorld) error) (changed <-chan struct{}, err error) {
	k := v.world
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case v.killed():
		return nil, store.KeyringError(string(keyringGone), nil)
	case k.state == keyringFrozen:
		return k.changed, nil
	case k.state != keyringWorking:
		return nil, store.KeyringError(string(k.state), nil)
	}
	return nil, f(k)
}

func (v *keyringView) jitter(op, id string) time.Duration {
	return spread(200*time.Microsecond, 3*time.Millisecond, v.world.seed, v.nth, op, id, time.Now().UnixNano())
}

// AskAgain and Close do nothing: this service asks no person.
func (v *keyringView) AskAgain() {}
func (v *keyringView) Close()    {}
