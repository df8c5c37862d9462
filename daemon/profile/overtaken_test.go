package profile

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"bloq-agent/accounts/sandbox"
	"bloq-agent/store"
)

// A waiter is a context that tells when somebody waits for its end.
type waiter struct {
	context.Context
	once  sync.Once
	waits chan struct{}
}

func newWaiter(ctx context.Context) *waiter { return &waiter{Context: ctx, waits: make(chan struct{})} }

func (w *waiter) Done() <-chan struct{} {
	w.once.Do(func() { close(w.waits) })
	return w.Context.Done()
}

// Who waits for an exchange when a lock comes gets no token, however the wait ends.
func TestAWaitThatALockOvertakesGetsNoToken(t *testing.T) {
	for _, how := range []string{"the caller gives up", "the exchange ends"} {
		t.Run(how, func(t *testing.T) {
			e, s := newEndpoint(t, sandbox.Config{}), newSet(t)
			a := e.mint(t)
			a.Store, a.IssuedAt = "file", time.Now().Add(-40*time.Minute)
			reached, answer := make(chan struct{}), make(chan struct{})
			spoil := func(map[string]any) { close(reached); <-answer }
			e.spoil.Store(&spoil)
			_, err := s.Adopt("work", a)
			do(t, err)
			p := s.named("work")
			wait(t, reached, "an exchange begins")
			ctx, giveUp := context.WithCancel(t.Context())
			defer giveUp()
			caller := newWaiter(ctx)
			got := make(chan error, 1)
			go func() {
				_, err := p.Token(caller, 50*time.Minute)
				got <- err
			}()
			wait(t, caller.waits, "the caller waits")
			last := s.last
			locked := make(chan error, 1)
			go func() { locked <- s.Lock(false) }()
			s.awaitWish(last + 1)
			if how == "the caller gives up" {
				giveUp()
				wantKind(t, <-got, NeedsUnlock)
				close(answer)
			} else {
				close(answer)
				wantKind(t, <-got, NeedsUnlock)
			}
			do(t, <-locked)
		})
	}
}

// A kill can come between the record of a logout and the end of what systemd keeps.
func TestWhatWasKeptIsNotServedAfterALogout(t *testing.T) {
	at := newPlace(t)
	records, err := store.OpenProfiles(at.state())
	do(t, err)
	r := store.Profile{Name: "work", ID: store.NewID(), Leftovers: []string{"keyring"}}
	do(t, records.Put(r))
	s := Open(records, defaults(), at.stores(), []Kept{at.kept(r)}, at.clock, at.hear)
	t.Cleanup(s.Close)
	s.Start()
	_, err = s.named("work").Token(t.Context(), 0)
	wantKind(t, err, NeedsLogin)
	if s.Keep() != nil {
		t.Error("it is kept for the next daemon")
	}
}

// kept is a valid access token of r that the daemon before has left.
func (p *place) kept(r store.Profile) Kept {
	return Kept{
		ID: r.ID, Token: store.NewSecret([]byte("access")), IssuedAt: time.Now(), Expiry: time.Now().Add(time.Hour),
		ExpiryBoot: p.clock.Boottime() + time.Hour,
	}
}

func TestAStopWhileLockedSavesARotatedToken(t *testing.T) {
	at := newPlace(t)
	s := at.open(t)
	p := s.serve(t, "work", "file", "refresh token")
	var mu sync.Mutex
	full := errors.New("full")
	do(t, p.replace(func(old *state) (plan, error) {
		todo, err := p.reconfigure(old)
		todo.login.store = &spy{Store: s.stores.File, saving: func() error { mu.Lock(); defer mu.Unlock(); return full }}
		todo.login.item.RefreshToken = store.NewSecret([]byte("rotated"))
		todo.from.unsaved = store.NewSecret([]byte("rotated"))
		return todo, err
	}))
	at.until(t, "a save fails", func() bool { return p.state.Load().unsavedErr() != nil })
	do(t, s.Lock(false))
	mu.Lock()
	full = nil
	mu.Unlock()
	s.Close()
	if n := len(at.of(StoppingLoses)); n != 0 {
		t.Errorf("%d losses are told", n)
	}
	if got := string(p.saved(t, s.stores.File).RefreshToken.Reveal()); got != "rotated" {
		t.Errorf("the store has %q", got)
	}
}

// A caller for whom nobody looks any more asks the next daemon.
func TestAStopEndsTheWaitForAStore(t *testing.T) {
	at := newPlace(t)
	s := at.open(t)
	p := s.logIn(t, newEndpoint(t, sandbox.Config{}), "work", "file")
	do(t, s.Lock(false))
	block(t, filepath.Join(at.state(), p.record().ID+".age"))
	_ = s.Unlock(nil)
	if phase := p.state.Load().phase; phase != Waiting {
		t.Fatalf("phase %d", phase)
	}
	s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := p.Token(ctx, 0); !errors.Is(err, ErrStopping) || ctx.Err() != nil {
		t.Errorf("%v; the caller's own end: %v", err, ctx.Err())
	}
}

// A bus that accepts and says nothing keeps nobody from a token that is at hand.
func TestATokenAtHandWaitsForNoBus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	do(t, err)
	defer func() { _ = l.Close() }()
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+path)
	at := newPlace(t)
	records, err := store.OpenProfiles(at.state())
	do(t, err)
	urls := defaults().Endpoints(store.Profile{})
	r := store.Profile{
		Name: "work", ID: store.NewID(), Store: "keyring",
		TokenURL: urls.Token, LoginURL: urls.Login, KeysURL: urls.Keys, NodesURL: urls.Nodes,
	}
	do(t, records.Put(r))
	s := Open(records, defaults(), at.stores(), []Kept{at.kept(r)}, at.clock, at.hear)
	t.Cleanup(s.Close)
	s.Start()
	p := s.named("work")
	at.until(t, "the store is looked at", func() bool { return p.state.Load().phase == Waiting })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	caller := newWaiter(ctx)
	if token, err := p.Token(caller, 0); err != nil || string(token.Value) != "access" {
		t.Errorf("%q, %v", token.Value, err)
	}
	select {
	case <-caller.waits:
		t.Error("it waited")
	default:
	}
}
