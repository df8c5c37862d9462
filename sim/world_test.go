//go:build linux

package sim

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"bloq-agent/accounts/sandbox"
)

// A world is one machine with its person, its network and the endpoint behind it,
// for the length of one history. It is all inside one bubble of virtual time.
type world struct {
	seed       uint64
	ttl        time.Duration // of access tokens
	refreshTTL time.Duration // of refresh tokens
	full       bool          // real signatures and real encryption

	clocks  *clocks
	volume  *volume
	keyring *keyringWorld
	api     *endpoint
	steps   sync.WaitGroup // under way

	// model guards what follows: what the model knows. Each step holds it, except while
	// it waits. It is locked before every other mutex.
	model       sync.Mutex
	persons     map[string]*person
	current     *instance // the last that was started; it may be dead
	instances   []*instance
	lockChanges []*lockChange // in the order in which they began
	trouble     trouble
	slept       time.Time         // when the machine last did, by the bubble's time
	diskIs      string            // what the last disk step has set
	itemCopies  map[string][]byte // by the record's id: what "copy" kept for "putback"
	backup      *snapshot         // what "backup" kept for "restore"
	restored    bool              // an older state directory is back: its records do not name what came later
	version1    bool              // version 1 has written the records
	ownProfiles []byte            // profiles.json, while one of another version is in its place

	mu         sync.Mutex
	trace      []line
	violations []string
}

type line struct {
	at   time.Duration
	text string
}

func newWorld(h history) *world {
	w := &world{
		seed: h.seed(), ttl: h.world.span("ttl", time.Hour), refreshTTL: h.world.span("refresh", 8760*time.Hour), full: h.world.has("full"),
		clocks: newClocks(), persons: map[string]*person{}, itemCopies: map[string][]byte{},
	}
	w.volume = newVolume(w.seed, w.clocks.true)
	w.keyring = newKeyringWorld(w.seed)
	rotate := cmp.Or(h.world.arg("rotate"), "none")
	if rotate == "grace" {
		rotate = "grace=30s"
	}
	rotation, err := sandbox.ParseRotation(rotate)
	if err != nil {
		panic(err)
	}
	w.api = newEndpoint(w, sandbox.Config{
		AccessTTL: w.ttl, RefreshTTL: w.refreshTTL, Rotation: rotation,
		Now: w.clocks.true, Unsigned: !w.full, Key: signingKey(), Password: "correct horse",
	})
	return w
}

// person is the user of a profile. It is made at its first mention.
func (w *world) person(name string) *person {
	p := w.persons[name]
	if p == nil {
		p = &person{name: name, sure: true}
		w.persons[name] = p
	}
	return p
}

// people are all persons, sorted by name: a map has another order each time.
func (w *world) people() []*person {
	var list []*person
	for _, p := range w.persons {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *person) int { return strings.Compare(a.name, b.name) })
	return list
}

func (w *world) loginOf(clientID string) *login {
	for _, p := range w.people() {
		for _, l := range p.logins {
			if l.clientID == clientID {
				return l
			}
		}
	}
	return nil
}

// note adds a line to the trace.
func (w *world) note(format string, args ...any) {
	at := w.clocks.true().Sub(epoch)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, line{at, fmt.Sprintf(format, args...)})
	if printTrace {
		fmt.Println(at, w.trace[len(w.trace)-1].text)
	}
}

// printTrace prints the trace as it comes, to see where a history does not end.
var printTrace = os.Getenv("SIM_LOUD") != ""

// epoch is the time at which testing/synctest begins every bubble.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// violated records that a promise was broken.
func (w *world) violated(what, format string, args ...any) {
	text := what + ": " + fmt.Sprintf(format, args...)
	w.note("VIOLATION %s", text)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, text)
}

// pause takes a moment, so that hardly two goroutines act at the same instant. The seed
// decides how long, from what happens to whom and when. A generator of random numbers
// would not do: what it returns depends on the order in which the goroutines come.
func (w *world) pause(what, whom string, most time.Duration) {
	time.Sleep(spread(1, most, w.seed, what, whom, time.Now().UnixNano()))
}

// ask is call for a step, which holds w.model.
func (w *world) ask(q request) (a answer) {
	w.outside(func() { a = w.call(q) })
	return a
}

// outside runs f, which may wait, without w.model.
func (w *world) outside(f func()) {
	w.model.Unlock()
	defer w.model.Lock()
	f()
}

func (w *world) sleep(d time.Duration) { w.outside(func() { time.Sleep(d) }) }
