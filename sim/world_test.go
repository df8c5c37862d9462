package sim

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/daemon"
	"bloq-agent/daemon/profile"
	"bloq-agent/ipc/server"
	"bloq-agent/store"

	"github.com/rs/zerolog"
)

// A world is one machine with its person, its network and the endpoint behind it,
// for the length of one history. It is all inside one bubble of virtual time.
type world struct {
	seed       uint64
	rotation   string
	ttl        time.Duration // of access tokens
	refreshTTL time.Duration // of refresh tokens
	full       bool          // real signatures and real encryption

	clocks  *clocks
	volume  *volume
	keyring *keyringWorld
	api     *endpoint
	config  string // a real file: the one that a daemon reads by itself

	persons   map[string]*person
	current   *instance // that runs, or nil
	instances []*instance
	ops       sync.WaitGroup // commands under way
	doors     []*door        // locks and unlocks, in the order in which they began
	trouble   trouble
	olds      map[string][]byte // copies that a person keeps of items
	backup    *snapshot

	// model guards what is known of the world. Each command holds it, but not while
	// it waits.
	model    sync.Mutex
	diskIs   string
	slept    time.Time // when the machine last did, by the bubble's time
	version1 bool      // the records have been written by version 1
	nextFate saveFate  // of the keyring's next save
	kept     []byte    // profiles.json, while another version's is in its place

	mu         sync.Mutex
	trace      []line
	violations []string
}

type line struct {
	at   time.Duration
	text string
}

// A door is one lock or unlock.
type door struct {
	lock       bool
	start, end time.Time // end is zero while it is under way
	ok         bool
}

func newWorld(h history) *world {
	w := &world{
		rotation: h.world.arg("rotate"), ttl: h.world.span("ttl", time.Hour), clocks: newClocks(),
		persons: map[string]*person{}, olds: map[string][]byte{}, config: "/nonexistent/config.toml",
		full: h.world.arg("full") != "", refreshTTL: h.world.span("refresh", 8760*time.Hour),
	}
	_, _ = fmt.Sscan(h.world.arg("seed"), &w.seed)
	w.volume = newVolume(w.seed, w.clocks.true)
	w.keyring = newKeyringWorld(w.seed, func(reason string) error { return store.KeyringError(reason, nil) })
	rotation, err := sandbox.ParseRotation(map[string]string{"": "none", "grace": "grace=30s"}[w.rotation] + map[bool]string{true: w.rotation}[w.rotation == "none" || w.rotation == "strict"])
	if err != nil {
		panic(err)
	}
	w.keyring.fate = func(string) saveFate {
		fate := w.nextFate
		w.nextFate = saveDone
		return fate
	}
	w.api = newEndpoint(w, sandbox.Config{
		AccessTTL: w.ttl, RefreshTTL: w.refreshTTL, Rotation: rotation,
		Now: w.clocks.true, Unsigned: !w.full, Key: signingKey(), Password: "correct horse",
	})
	return w
}

func (w *world) person(name string) *person {
	p := w.persons[name]
	if p == nil {
		p = &person{name: name, sure: true}
		w.persons[name] = p
	}
	return p
}

// people are all, in the order of their names.
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

// note writes what happened into the trace.
func (w *world) note(format string, args ...any) {
	at := w.clocks.true().Sub(start)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, line{at, fmt.Sprintf(format, args...)})
	if loud {
		fmt.Println(at, w.trace[len(w.trace)-1].text)
	}
}

// loud prints the trace as it comes, to see where a history does not end.
var loud = os.Getenv("SIM_LOUD") != ""

// start is when every bubble begins.
var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// violated writes down that a promise was broken.
func (w *world) violated(what, format string, args ...any) {
	text := what + ": " + fmt.Sprintf(format, args...)
	w.note("VIOLATION %s", text)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, text)
}

// pause takes a moment that the seed draws for what happens to whom at this instant:
// so that hardly two goroutines act at the same one, and the order in which they come
// to draw makes no difference.
func (w *world) pause(what, whom string, most time.Duration) {
	time.Sleep(spread(1, most, w.seed, what, whom, time.Now().UnixNano()))
}

// An instance is one run of the daemon. When it is killed its goroutines live on,
// but nothing that they do reaches the world any more.
type instance struct {
	w      *world
	number int
	view   *view
	bus    *keyringView
	log    logged
	stores profile.Stores

	handler http.Handler
	serving chan struct{} // closed when it answers
	ended   chan struct{} // closed when Run has returned
	end     context.CancelFunc
	reload  chan os.Signal
	changed chan struct{} // the configuration may have

	mu     sync.Mutex
	killed chan struct{}
	conns  []net.Conn
	active sync.WaitGroup // requests
	closed bool
	served map[string]generation // by profile
	hint   func()
	moved  time.Time // when its state directory was replaced
}

type generation struct {
	at     time.Time
	number uint64
}

// logged is what a daemon has written for people.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (i *instance) dead() bool {
	select {
	case <-i.killed:
		return true
	default:
		return false
	}
}

func (i *instance) opened(c net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.conns = append(i.conns, c)
}

// newInstance makes what a daemon has of the world.
func newInstance(w *world) *instance {
	i := &instance{
		w: w, number: len(w.instances) + 1, view: disks.open(w.volume), bus: w.keyring.open(), killed: make(chan struct{}), serving: make(chan struct{}),
		ended: make(chan struct{}), reload: make(chan os.Signal, 1), changed: make(chan struct{}, 1), served: map[string]generation{},
	}
	w.instances = append(w.instances, i)
	if os.Getenv("SIM_DISK") != "" {
		i.view.before = func(op, path string) error {
			w.note("%d: %s %s", i.number, op, path)
			return nil
		}
	}
	i.stores = profile.Stores{
		Keyring: store.NewKeyringOf(i.bus), Memory: store.NewMemory(),
		File: store.NewFile(i.view.path("state"), store.NewKey(i.view.path("keys"), "")),
	}
	return i
}

// run starts the daemon and waits until it answers, or why it does not.
func (w *world) run() (*instance, error) {
	i := newInstance(w)
	var d *daemon.Daemon
	var err error
	options := daemon.Options{
		Version: "simulated", StateDir: i.view.path("state"), ConfigPath: w.config, Log: zerolog.New(&i.log), Stores: i.stores,
		Outside: &daemon.Outside{
			Clock: w.clocks, Dial: w.api.dial(i),
			Serve:        func(h http.Handler, hooks server.Hooks) daemon.Server { return i.serve(h, hooks) },
			WatchConfig:  func(context.Context, string) (<-chan struct{}, error) { return i.changed, nil },
			WatchMachine: func(_ context.Context, hint func(), _ func(string, error)) { i.hint = hint },
		},
	}
	w.outside(func() { d, err = daemon.New(options) })
	if err != nil {
		close(i.ended)
		close(i.killed)
		i.view.kill()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	i.end = cancel
	go func() {
		defer close(i.ended)
		if err := d.Run(ctx, i.reload); err != nil {
			w.violated("the daemon runs", "daemon %d ended: %v", i.number, err)
		}
	}()
	return i, nil
}

// A served is what stands in for the socket.
type served struct {
	*instance
	stopped chan struct{}
	once    *sync.Once
}

func (i *instance) serve(h http.Handler, hooks server.Hooks) daemon.Server {
	inner := hooks.Panicked
	hooks.Panicked = func(what string, stack []byte) {
		i.w.violated("no request panics", "%s\n%s", what, stack)
		inner(what, stack)
	}
	i.handler = server.Handler(h, hooks)
	return served{i, make(chan struct{}), new(sync.Once)}
}

func (s served) Serve() error {
	close(s.serving)
	<-s.stopped
	return nil
}

func (s served) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.once.Do(func() { close(s.stopped) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.active.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s served) Close() error {
	s.once.Do(func() { close(s.stopped) })
	return nil
}

func (s served) CloseIdle()    {}
func (s served) Turns() uint64 { return 0 } // systemd asks for none here

// kill is SIGKILL.
func (i *instance) kill() {
	close(i.killed)
	i.view.kill()
	i.bus.kill()
	i.mu.Lock()
	for _, c := range i.conns {
		_ = c.Close()
	}
	i.mu.Unlock()
	i.end() // its goroutines end, and nothing of what they do counts
}

// running is the daemon that answers now, or nil.
func (w *world) running() *instance {
	i := w.current
	if i == nil || i.dead() {
		return nil
	}
	select {
	case <-i.serving:
		return i
	default:
		return nil
	}
}
