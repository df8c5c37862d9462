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

// A service is the keyring as package store asks for it.
type service interface {
	Load(ctx context.Context, id string) ([]byte, error)
	Save(ctx context.Context, id string, secret []byte) error
	Delete(ctx context.Context, id string) error
	Watch(ctx context.Context) <-chan struct{}
}

var _ service = (*keyringView)(nil)

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

// A saveFate is what becomes of one Save.
type saveFate int

const (
	saveDone    saveFate = iota
	saveUnheard          // the item is taken, and the answer is lost
	saveDiesOld          // the service dies before it takes the item
	saveDiesNew          // the service dies after it took the item
)

// unsafeFor is how long a power loss can undo what the keyring has answered.
const unsafeFor = 50 * time.Millisecond

// A keyringWorld is the machine's Secret Service. Its items outlive every daemon.
type keyringWorld struct {
	seed   uint64
	errFor func(reason string) error
	fate   func(id string) saveFate // asked at each Save, under mu: it must not use this world; may be nil

	mu      sync.Mutex // never held over a wait
	state   keyringState
	changed chan struct{} // closed when state changes
	items   map[string][]byte
	recent  []keyringWrite // in order
	views   []*keyringView
}

type keyringWrite struct {
	at     time.Time
	id     string
	before []byte // nil for no item
}

// newKeyringWorld works and is empty. It must be called in the bubble.
func newKeyringWorld(seed uint64, errFor func(reason string) error) *keyringWorld {
	return &keyringWorld{seed: seed, errFor: errFor, changed: make(chan struct{}), items: map[string][]byte{}}
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

// item is for the oracle and the person; nil if there is none.
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

// put replaces an item by hand; nil deletes it.
func (k *keyringWorld) put(id string, secret []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.putLocked(id, secret)
	k.recent = nil
}

func (k *keyringWorld) putLocked(id string, secret []byte) {
	old := func(w keyringWrite) bool { return time.Since(w.at) >= unsafeFor }
	k.recent = append(slices.DeleteFunc(k.recent, old), keyringWrite{time.Now(), id, k.items[id]})
	if secret == nil {
		delete(k.items, id)
		return
	}
	k.items[id] = append([]byte{}, secret...)
}

// crash is a power loss: every view dies, and of the writes of the last 50 ms a
// prefix stays. Draw returns a number below its argument.
func (k *keyringWorld) crash(draw func(n int) int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, v := range k.views {
		v.killLocked()
	}
	recent := slices.DeleteFunc(k.recent, func(w keyringWrite) bool { return time.Since(w.at) >= unsafeFor })
	for _, w := range slices.Backward(recent[draw(len(recent)+1):]) {
		delete(k.items, w.id)
		if w.before != nil {
			k.items[w.id] = w.before
		}
	}
	k.recent = nil
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
		k.putLocked(id, nil)
		return nil
	})
}

func (v *keyringView) Save(ctx context.Context, id string, secret []byte) error {
	return v.call(ctx, "save", id, func(k *keyringWorld) error {
		fate := saveDone
		if k.fate != nil {
			fate = k.fate(id)
		}
		if fate != saveDiesOld {
			k.putLocked(id, secret)
		}
		switch fate {
		case saveUnheard:
			return k.errFor("gone")
		case saveDiesOld, saveDiesNew:
			k.setLocked(keyringDead)
			return k.errFor("gone")
		}
		return nil
	})
}

// call takes its time, then does f under the world's lock if the keyring works.
func (v *keyringView) call(ctx context.Context, op, id string, f func(*keyringWorld) error) error {
	k := v.world
	select {
	case <-time.After(v.jitter(op, id)):
	case <-ctx.Done():
		return ctx.Err()
	case <-v.dead:
		return k.errFor("gone")
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
			return k.errFor("gone")
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
		return nil, k.errFor("gone")
	case k.state == keyringFrozen:
		return k.changed, nil
	case k.state != keyringWorking:
		return nil, k.errFor(string(k.state))
	}
	return nil, f(k)
}

func (v *keyringView) jitter(op, id string) time.Duration {
	return spread(200*time.Microsecond, 3*time.Millisecond, v.world.seed, v.nth, op, id, time.Now().UnixNano())
}

// AskAgain and Close do nothing: this service asks no person.
func (v *keyringView) AskAgain() {}
func (v *keyringView) Close()    {}
