package daemon

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/ipc"
	"bloq-agent/refresher"
	"bloq-agent/store"
)

// loadGap is how long after a store failed it is asked again for a request.
const loadGap = 5 * time.Second

// A profile is one configured login. Readers take its state by one atomic
// load; what replaces the state holds change.
type profile struct {
	name   string
	change sync.Mutex
	state  atomic.Pointer[state]
}

// A state is what a profile is between two changes. It is never modified.
type state struct {
	facts     store.Profile // zero if the profile never logged in
	endpoints accounts.Endpoints

	// Either the three are set, or problem is.
	login     *login
	refresher *refresher.Refresher
	stop      func() // ends the refresher and waits for it

	problem *ipc.Problem
	failed  time.Time // when the store was asked in vain; zero if that is not the problem
}

// token answers for one profile. A state that is replaced while its caller
// waits is not the caller's business: the next one is asked.
func (d *Daemon) token(ctx context.Context, p *profile, minTTL time.Duration) (refresher.Token, *ipc.Problem) {
	for {
		s := d.recovered(ctx, p)
		if s.problem != nil {
			return refresher.Token{}, s.problem
		}
		t, err := s.refresher.Token(ctx, minTTL)
		if err == nil {
			return t, nil
		}
		if !errors.Is(err, refresher.ErrStopped) {
			return refresher.Token{}, p.problem(err)
		}
		if p.state.Load() == s {
			return refresher.Token{}, errStopping
		}
	}
}

// errStopping is answered by breaking the connection: the helper then asks the
// daemon that comes next.
var errStopping = &ipc.Problem{Code: ipc.CodeUnavailable, Detail: "the daemon is stopping"}

// recovered is p's state, after another look at a store that failed before.
func (d *Daemon) recovered(ctx context.Context, p *profile) *state {
	s := p.state.Load()
	if s.failed.IsZero() || time.Since(s.failed) < loadGap {
		return s
	}
	p.change.Lock()
	defer p.change.Unlock()
	if now := p.state.Load(); now != s {
		return now
	}
	d.open(ctx, p, s.facts, 0)
	return p.state.Load()
}

// open loads p's item and starts its refresher, or records why it cannot. The
// caller holds p.change, and the state before has been stopped. Tokens are
// numbered on from generation.
func (d *Daemon) open(ctx context.Context, p *profile, facts store.Profile, generation uint64) {
	s := &state{facts: facts}
	defer func() { p.state.Store(s) }()
	config := d.config.Load()
	s.endpoints = config.endpoints(facts)
	if d.stopping.Load() {
		s.problem = errStopping
		return
	}
	if facts.Store == "" { // nothing was ever adopted
		s.problem = p.needsLogin("needs login")
		return
	}
	st, err := d.storeNamed(facts.Store)
	if err == nil {
		err = d.openFrom(ctx, p, s, st, generation)
	}
	if err != nil {
		s.problem, s.failed = p.storeProblem(err)
		d.log.Error().Str("profile", p.name).Err(err).Msg("profile cannot be served")
	}
}

func (d *Daemon) openFrom(ctx context.Context, p *profile, s *state, st store.Store, generation uint64) error {
	client, err := accounts.New(s.endpoints, d.clientOptions())
	if err != nil {
		return err
	}
	item, err := load(ctx, st, s.facts.ID, s.endpoints.Token)
	if err != nil {
		return err
	}
	d.start(p, s, &login{client: client, store: st, id: s.facts.ID, item: item}, nil, generation)
	return nil
}

// start runs a refresher on l and fills s with both.
func (d *Daemon) start(p *profile, s *state, l *login, g *refresher.Grant, generation uint64) {
	r := refresher.New(refresher.Config{
		Exchange: l.exchange, Save: l.save, Grant: g, Generation: generation,
		Observe: func(previous, current *refresher.Snapshot) { d.observe(p, s, previous, current) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	s.login, s.refresher = l, r
	s.stop = func() {
		cancel()
		<-ended
	}
	go func() {
		defer close(ended)
		r.Run(ctx)
	}()
}

// resume starts again what old.halt stopped, with the secrets and the token
// that it held: the store need not answer for that.
func (d *Daemon) resume(p *profile, old *state) {
	if old.login == nil {
		return // nothing ran; p's state is still old
	}
	s := &state{facts: old.facts, endpoints: old.endpoints}
	grant, generation := old.refresher.Snapshot().Grant(), old.generation()
	if grant != nil {
		generation-- // it keeps its number
	}
	d.start(p, s, old.login, grant, generation)
	p.state.Store(s)
}

// halt stops what runs in s, if anything does, and keeps its secrets.
func (s *state) halt() {
	if s.stop != nil {
		s.stop()
	}
}

// generation is the number of the last token that s published.
func (s *state) generation() uint64 {
	if s.refresher == nil {
		return 0
	}
	return s.refresher.Snapshot().Generation
}

func (p *profile) needsLogin(detail string) *ipc.Problem {
	return &ipc.Problem{
		Code: ipc.CodeNeedsLogin, Detail: p.name + ": " + detail,
		Hint: "bloq-agent login --profile " + p.name,
	}
}

// problem translates why there is no token.
func (p *profile) problem(err error) *ipc.Problem {
	var e *refresher.Error
	if !errors.As(err, &e) {
		return &ipc.Problem{Code: ipc.CodeUnavailable, Detail: p.name + ": " + err.Error(), Hint: "bloq-agent status"}
	}
	switch e.Class {
	case refresher.NeedsLogin:
		return p.needsLogin("needs login: " + e.Err.Error())
	case refresher.Configuration:
		return &ipc.Problem{Code: ipc.CodeConfiguration, Detail: p.name + ": " + e.Err.Error(), Hint: "bloq-agent login --profile " + p.name}
	}
	detail := p.name + ": no valid token: " + e.Err.Error()
	if wait := time.Until(e.Next); !e.Next.IsZero() && wait > 0 {
		detail += "; next try in " + (wait + time.Second).Truncate(time.Second).String()
	}
	return &ipc.Problem{Code: ipc.CodeUnavailable, Detail: detail, Hint: "bloq-agent status"}
}

// storeProblem translates why a login cannot be had from its store. The time
// is zero if asking again has no point before something changes.
func (p *profile) storeProblem(err error) (*ipc.Problem, time.Time) {
	now := time.Now()
	var unavailable *store.Unavailable
	var origin *originError
	switch {
	case errors.Is(err, store.ErrNotFound):
		return p.needsLogin("needs login: its secrets are not in the store any more"), now
	case errors.As(err, &origin):
		return &ipc.Problem{
			Code: ipc.CodeConfiguration, Detail: p.name + ": " + err.Error(),
			Hint: "bloq-agent login --profile " + p.name,
		}, time.Time{}
	case errors.As(err, &unavailable):
		code := ipc.CodeUnavailable
		if unavailable.Locked {
			code = ipc.CodeLocked
		}
		return &ipc.Problem{Code: code, Detail: p.name + ": " + err.Error(), Hint: unavailable.Hint}, now
	}
	return &ipc.Problem{Code: ipc.CodeConfiguration, Detail: p.name + ": " + err.Error(), Hint: "bloq-agent status"}, now
}
