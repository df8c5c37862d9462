package profile

import (
	"context"

	"bloq-agent/accounts"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

// A recipe says what becomes of a profile. It may do I/O: no reader waits for it.
// While it runs, no other recipe does, and the refresher of old stands still. If
// it fails, the profile stays what it was.
type recipe func(old *state) (plan, error)

// A plan is the state that a recipe wants.
type plan struct {
	endpoints accounts.Endpoints
	// problem is why the profile will not serve; its Phase is the profile's.
	problem *Problem
	// login is what the profile will serve with. Beside a problem it is a login
	// that stays in memory.
	login *login
	// held says that a lock leaves a refresh token in memory, here or in the memory
	// store.
	held bool
	from inherited
	// keep says that what the daemon before has kept is still good.
	keep bool
	// again says that the login is the one that ran before, so it must not be wiped.
	again bool
	// announce reports the token of from as a new one.
	announce bool
	// events are reported when the state is published.
	events []Event
}

// inherited is what a refresher takes over from the one before.
type inherited struct {
	grant   *refresher.Grant // the token at hand, or nil
	unsaved store.Secret     // a refresh token that could not be saved, or empty
	same    bool             // the token at hand keeps its number
	kept    bool             // it comes from the daemon before
}

// replace is the only function that changes what a profile is (invariant 2).
func (p *Profile) replace(next recipe) error {
	p.change.Lock()
	defer p.change.Unlock()
	old := p.state.Load()
	old.halt()
	todo, err := next(old)
	if err != nil {
		p.resume(old)
		return err
	}
	if p.set.stopping() {
		if todo.login != nil && !todo.again {
			todo.login.wipe()
		}
		p.resume(old)
		return ErrStopping
	}
	p.publish(old, todo)
	return nil
}

// publish starts what todo wants and makes it the profile's state.
func (p *Profile) publish(old *state, todo plan) {
	s := &state{endpoints: todo.endpoints, problem: todo.problem, replaced: make(chan struct{})}
	switch {
	case todo.problem == nil:
		s.phase = Serving
		start(p, s, todo, old.phase == Locked)
	default:
		s.phase = todo.problem.Phase
		s.login, s.unsaved, s.held = todo.login, todo.from.unsaved, todo.held
	}
	if todo.keep && (s.phase == Waiting || s.phase == Opening) {
		s.kept = old.kept
	}
	if s.phase == Waiting {
		s.looks, s.closed = make(chan chan struct{}), p.set.ctx.Done()
	}
	p.state.Store(s)
	close(old.replaced)
	old.release(todo)
	if s.phase == Waiting {
		p.set.background(func(ctx context.Context) { await(ctx, p, s) })
	}
	report(p, old, s, todo)
}

func report(p *Profile, old, s *state, todo plan) {
	for _, e := range todo.events {
		e.Profile = p.name
		p.set.on(e)
	}
	if todo.announce && s.phase == Serving {
		p.set.on(Event{Kind: Published, Profile: p.name, Current: s.refresher.Snapshot()})
	}
	if s.phase != old.phase || s.endpoints != old.endpoints || !sameProblem(old.problem, s.problem) {
		p.set.on(Event{Kind: Changed, Profile: p.name, Err: asError(s.problem)})
	}
}

// release clears the secrets of old that its successor has no use for.
func (old *state) release(todo plan) {
	if old.refresher != nil {
		old.refresher.Wipe()
	}
	if old.login != nil && !todo.again {
		old.login.wipe()
	}
}

// resume starts again what replace halted, with the secrets and the token that it
// had: the store need not answer for that.
func (p *Profile) resume(old *state) {
	if old.phase != Serving || p.set.stopping() {
		return
	}
	p.publish(old, plan{endpoints: old.endpoints, login: old.login, from: old.inherit(), again: true})
}

// halt stops the refresher of s, if there is one, and keeps its secrets.
func (s *state) halt() {
	if s.stop != nil {
		s.stop()
	}
}

// inherit returns what s, which was halted, leaves to the next refresher.
func (s *state) inherit() inherited {
	if s.refresher == nil {
		return inherited{unsaved: s.unsaved}
	}
	snapshot := s.refresher.Snapshot()
	from := inherited{grant: snapshot.Grant(), same: true}
	if snapshot.SaveErr != nil || s.login.onlyInMemory() {
		from.unsaved = s.login.copyItem().RefreshToken
	}
	return from
}

// unsavedErr is why only memory has the refresh token of s, or nil.
func (s *state) unsavedErr() error {
	if s.phase != Serving {
		return nil
	}
	return s.refresher.Snapshot().SaveErr
}

// start runs a refresher on todo.login. Unlocked says that an unlock made it: a
// caller can have that as often as a refresh.
func start(p *Profile, s *state, todo plan, unlocked bool) {
	l, from := todo.login, todo.from
	generation := p.generation.Load()
	if from.same && from.grant != nil {
		generation--
	}
	since, lost := l.mark.found()
	again := lost && (from.grant == nil || from.kept)
	if again {
		p.set.on(Event{Kind: ReplyLost, Profile: p.name, Since: since})
	}
	r := refresher.New(refresher.Config{
		Exchange: l.exchange, Save: l.save, Grant: from.grant, Generation: generation, Unsaved: from.unsaved.Reveal(),
		Wishes: &p.wishes, Wished: unlocked, Clock: p.set.clock, AtOnce: again,
		Observe: func(previous, current *refresher.Snapshot) { observe(p, l, previous, current) },
	})
	l.begin(r, !from.unsaved.IsZero(), lost && from.unsaved.IsZero())
	p.generation.Store(r.Snapshot().Generation)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	s.login, s.refresher = l, r
	s.stop = func() {
		cancel()
		<-ended
	}
	go func() { // ends with stop
		defer close(ended)
		r.Run(ctx)
	}()
}

func sameProblem(a, b *Problem) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// asError avoids an error that holds a nil *Problem.
func asError(p *Problem) error {
	if p == nil {
		return nil
	}
	return p
}
