//go:build linux

package sim

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"bloq-agent/daemon"
	"bloq-agent/daemon/profile"
	"bloq-agent/ipc/server"
	"bloq-agent/store"

	"github.com/rs/zerolog"
)

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
	serving chan struct{}      // closed when it answers
	ended   chan struct{}      // closed when Run has returned
	end     context.CancelFunc // SIGTERM
	reload  chan os.Signal
	wake    atomic.Pointer[func()] // tells it of a wake-up, or of a network that has changed
	changed chan struct{}          // tells it that the configuration may have changed
	moved   time.Time              // when its state directory was replaced; guarded by world.model
	blind   bool                   // it could not read the records when it began, so it holds no directory

	mu     sync.Mutex
	killed chan struct{} // closed by kill
	conns  []net.Conn
	active sync.WaitGroup        // requests under way
	closed bool                  // it takes no more requests
	last   map[string]generation // that was served, by profile
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

func (i *instance) addConn(c net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.conns = append(i.conns, c)
}

// newInstance makes a daemon's part of the world: its view of the disk, its connection to
// the keyring, its stores.
func newInstance(w *world) *instance {
	i := &instance{
		blind: w.ownProfiles != nil,
		w:     w, number: len(w.instances) + 1, view: disks.open(w.volume), bus: w.keyring.open(), killed: make(chan struct{}), serving: make(chan struct{}),
		ended: make(chan struct{}), reload: make(chan os.Signal, 1), changed: make(chan struct{}, 1), last: map[string]generation{},
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

// startDaemon starts a daemon, and does not wait until it answers.
func (w *world) startDaemon() (*instance, error) {
	i := newInstance(w)
	var d *daemon.Daemon
	var err error
	options := daemon.Options{
		Version: "simulated", StateDir: i.view.path("state"), ConfigPath: "/nonexistent/config.toml", Log: zerolog.New(&i.log), Stores: i.stores,
		Outside: &daemon.Outside{
			Clock: w.clocks, Dial: w.api.dial(i),
			Serve:        func(h http.Handler, hooks server.Hooks) daemon.Server { return i.serve(h, hooks) },
			WatchConfig:  func(context.Context, string) (<-chan struct{}, error) { return i.changed, nil },
			WatchMachine: func(_ context.Context, hint func(), _ func(string, error)) { i.wake.Store(&hint) },
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

// A socket stands in for the daemon's server. Requests come by world.call.
type socket struct {
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
	return socket{i, make(chan struct{}), new(sync.Once)}
}

func (s socket) Serve() error {
	close(s.serving)
	<-s.stopped
	return nil
}

func (s socket) Shutdown(ctx context.Context) error {
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

func (s socket) Close() error {
	s.once.Do(func() { close(s.stopped) })
	return nil
}

func (s socket) CloseIdle()    {}
func (s socket) Turns() uint64 { return 0 } // no watchdog asks

// kill is SIGKILL. The goroutines of the daemon end, and nothing that they do counts.
func (i *instance) kill() {
	close(i.killed)
	i.view.kill()
	i.bus.kill()
	i.mu.Lock()
	for _, c := range i.conns {
		_ = c.Close()
	}
	i.mu.Unlock()
	i.end()
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

// stopping reports whether the daemon has stopped taking requests.
func (i *instance) stopping() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.closed
}

// admit counts a request in, if the daemon still takes one.
func (i *instance) admit() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return false
	}
	i.active.Add(1)
	return true
}
