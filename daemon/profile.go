package daemon

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/ipc"
	"bloq-agent/refresher"
	"bloq-agent/store"
	"bloq-agent/store/trusted"
)

// loadGap is how long after a store failed it is asked again for a request.
const loadGap = 5 * time.Second

// A profile is one configured login. Readers take its state by one atomic
// load; what replaces the state holds change.
type profile struct {
	name       string
	change     sync.Mutex
	state      atomic.Pointer[state]
	generation atomic.Uint64 // of the last token published, over all states
	warned     atomic.Int64  // days before the login's end that people were told of last
	skewed     atomic.Bool   // people were told that the clocks differ
	dropping   bool          // dropLater runs; guarded by change
	rejected   atomic.Int64  // when a refused token was last replaced, by Boottime
	kept       keptBox       // of the daemon before, until a refresher has it
}

// set replaces p's state. The caller holds p.change.
func (p *profile) set(s *state) {
	s.replaced = make(chan struct{})
	old := p.state.Swap(s)
	if old != nil {
		close(old.replaced)
	}
}

// A state is what a profile is between two changes. It is never modified.
type state struct {
	facts     store.Profile // zero if the profile never logged in
	endpoints accounts.Endpoints

	// Either the three are set, or problem is.
	login     *login
	refresher *refresher.Refresher
	stop      func() // ends the refresher and waits for it

	problem  *ipc.Problem
	replaced chan struct{} // closed when there is another state
	failed   time.Time     // when the store was asked in vain; zero if that is not the problem
}

// token answers for one profile. A state that is replaced while its caller
// waits is not the caller's business: the next one is asked.
func (d *Daemon) token(ctx context.Context, p *profile, minTTL time.Duration) (refresher.Token, *ipc.Problem) {
	for {
		s := d.recovered(ctx, p)
		if s.problem != nil {
			if t, ok := d.keptToken(p, s); ok {
				return t, nil
			}
			return refresher.Token{}, s.problem
		}
		t, err := s.refresher.Token(ctx, minTTL)
		if err == nil {
			return t, nil
		}
		if !errors.Is(err, refresher.ErrStopped) {
			return refresher.Token{}, p.problem(err)
		}
		if d.stopping.Load() {
			return refresher.Token{}, errStopping
		}
		select {
		case <-s.replaced:
		case <-ctx.Done():
			return refresher.Token{}, &ipc.Problem{Code: ipc.CodeUnavailable, Detail: p.name + ": its login is being replaced", Hint: "bloq-agent status"}
		}
	}
}

// errStopping is answered by breaking the connection: the helper then asks the
// daemon that comes next.
var errStopping = &ipc.Problem{Code: ipc.CodeUnavailable, Detail: "the daemon is stopping"}

// recovered is p's state, after another look at a store that failed before.
func (d *Daemon) recovered(ctx context.Context, p *profile) *state {
	s := p.state.Load()
	// Not while stopping: what is kept for the next daemon goes by this state.
	if s.failed.IsZero() || d.stopping.Load() || time.Since(s.failed) < loadGap {
		return s
	}
	if !p.change.TryLock() {
		return s // somebody is at it; a caller's deadline is not to wait for that
	}
	defer p.change.Unlock()
	if now := p.state.Load(); now != s {
		return now
	}
	d.open(ctx, p)
	return p.state.Load()
}

// open loads p's item and starts its refresher, or records why it cannot and
// has somebody wait for the store. The caller holds p.change, and the state
// before has been stopped.
func (d *Daemon) open(ctx context.Context, p *profile) {
	before := p.state.Load()
	s := d.opened(ctx, p)
	p.set(s)
	d.tellOpened(p, before, s)
	switch {
	case s.problem == nil, s.facts.Store == "": // not before the login there is known to be good
		d.dropSoon(ctx, p)
	case !s.failed.IsZero():
		go d.await(p, s)
	}
}

// tellOpened says what is new in s.
func (d *Daemon) tellOpened(p *profile, before, s *state) {
	if s.problem != nil && (before.problem == nil || before.problem.Detail != s.problem.Detail) {
		d.log.Warn().Str("profile", p.name).Str("code", string(s.problem.Code)).Msg(s.problem.Detail)
	}
	status := s.describe(d, p.name, time.Now())
	d.hub.publish(ipc.Event{Time: time.Now().UTC(), Event: "status", Profile: p.name, Status: &status})
	d.notifyStatus()
}

// await tries p again whenever its store may have changed. It ends when p is
// served, or is something else than s.
func (d *Daemon) await(p *profile, s *state) {
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	for w := d.waitFor(s.facts.Store); w.wait(ctx); {
		p.change.Lock()
		if p.state.Load() != s {
			p.change.Unlock()
			return
		}
		next := d.opened(ctx, p)
		p.set(next)
		if next.problem == nil {
			d.dropSoon(ctx, p)
		}
		p.change.Unlock()
		if next.problem == nil || next.problem.Detail != s.problem.Detail {
			d.tellOpened(p, s, next)
		}
		if next.failed.IsZero() {
			return
		}
		s = next
	}
}

// opened is the state of a profile that is being opened.
func (d *Daemon) opened(ctx context.Context, p *profile) *state {
	facts := d.facts(p.name)
	s := &state{facts: facts, endpoints: d.config.Load().endpoints(facts)}
	switch {
	case d.stopping.Load():
		s.problem = errStopping
	case facts.Store == "": // nothing was ever adopted
		s.problem = p.needsLogin("needs login")
	case d.locked.Load():
		s.problem = &ipc.Problem{Code: ipc.CodeLocked, Detail: p.name + ": locked", Hint: "bloq-agent unlock"}
	default:
		if err := d.openFrom(ctx, p, s); err != nil {
			s.problem, s.failed = p.storeProblem(err)
		}
	}
	return s
}

// facts is the record of a profile, which may be empty but for the name.
func (d *Daemon) facts(name string) store.Profile {
	f, _ := d.records.Lookup(name)
	f.Name = name
	return f
}

func (d *Daemon) openFrom(ctx context.Context, p *profile, s *state) error {
	st, err := d.options.Stores.named(s.facts.Store, p.name)
	if err != nil {
		return err
	}
	client, err := accounts.New(s.endpoints, d.clientOptions())
	if err != nil {
		return err
	}
	item, err := load(ctx, st, s.facts.ID, s.endpoints.Token)
	if err != nil {
		return err
	}
	d.start(p, s, &login{client: client, store: st, id: s.facts.ID, item: item}, d.takeKeptToken(p))
	return nil
}

// inherited is what a refresher takes over from the one before.
type inherited struct {
	grant   *refresher.Grant // the token at hand, or nil
	unsaved []byte           // a refresh token that could not be saved, or nil
	same    bool             // the token at hand keeps its number
	rotates bool             // the endpoint has been seen to rotate
	kept    bool             // it comes from the daemon before
}

// start runs a refresher on l and fills s with both.
func (d *Daemon) start(p *profile, s *state, l *login, from inherited) {
	generation := p.generation.Load()
	if from.same && from.grant != nil {
		generation--
	}
	l.intent = d.intentOf(s.facts)
	since, lost := l.intent.lost()
	l.doubted = lost && from.unsaved == nil
	again := lost && (from.grant == nil || from.kept)
	if again {
		d.log.Warn().Str("profile", p.name).Str("since", strings.TrimSpace(since)).
			Msg("a reply of the endpoint may have been lost; trying the refresh token once more")
	}
	l.ended = func(at time.Time) { d.recordEnd(p.name, at) }
	l.boottime = d.clock.Boottime
	l.notBought = func(err error) {
		d.log.Warn().Str("profile", p.name).Err(err).Msg("the client keys buy no new refresh token")
	}
	l.tellEnd(l.item.RefreshToken)
	r := refresher.New(refresher.Config{
		Exchange: l.exchange, Save: l.save, Grant: from.grant, Generation: generation, Unsaved: from.unsaved, Clock: d.clock, AtOnce: again,
		Observe: func(previous, current *refresher.Snapshot) { d.observe(p, s, previous, current) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	l.follow(r, from)
	s.login, s.refresher = l, r
	p.generation.Store(r.Snapshot().Generation)
	s.stop = func() {
		cancel()
		<-ended
	}
	go func() {
		defer close(ended)
		r.Run(ctx)
	}()
}

// resume starts again what s.halt stopped, with the secrets and the token that
// it held: the store need not answer for that.
func (d *Daemon) resume(p *profile, s *state) {
	if s.login == nil {
		return // nothing ran; p's state is still the old one
	}
	next := &state{facts: s.facts, endpoints: s.endpoints}
	d.start(p, next, s.login, s.inherit())
	p.set(next)
	s.refresher.Wipe()
}

// halt stops what runs in s, if anything does, and keeps its secrets.
func (s *state) halt() {
	if s.stop != nil {
		s.stop()
	}
}

// inherit is what s, which has been stopped, hands on to its successor.
func (s *state) inherit() inherited {
	snapshot := s.refresher.Snapshot()
	from := inherited{grant: snapshot.Grant(), same: true, rotates: s.login.hasRotated()}
	if snapshot.SaveErr != nil {
		item := s.login.copyItem()
		from.unsaved = item.RefreshToken.Reveal()
	}
	return from
}

// recordEnd keeps when a rotated refresh token ends. It is only for people to
// see, so a failure is logged and no more.
func (d *Daemon) recordEnd(name string, at time.Time) {
	if d.facts(name).RefreshExpiry.Equal(at) {
		return
	}
	if err := d.records.SetRefreshExpiry(name, at); err != nil {
		d.log.Warn().Str("profile", name).Err(err).Msg("end of the refresh token is not recorded")
	}
}

// wipe overwrites every secret of s, which has been stopped.
func (s *state) wipe() {
	if s.login != nil {
		s.login.wipe()
		s.refresher.Wipe()
	}
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
		return &ipc.Problem{Code: ipc.CodeConfiguration, Detail: p.name + ": " + e.Err.Error(), Hint: configurationHint(e.Err, p.name)}
	}
	detail := p.name + ": no valid token: " + e.Err.Error()
	if wait := time.Until(e.Next); !e.Next.IsZero() && wait > 0 {
		detail += "; next try in " + (wait + time.Second).Truncate(time.Second).String()
	}
	return &ipc.Problem{Code: ipc.CodeUnavailable, Detail: detail, Hint: "bloq-agent status"}
}

// configurationHint mends what the endpoint does not accept. A new login does
// not mend a proxy variable, for which nothing was sent; the error says how.
func configurationHint(err error, profile string) string {
	var e *accounts.Error
	if errors.As(err, &e) && e.Unsent {
		return ""
	}
	return "bloq-agent login --profile " + profile
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
	case errors.Is(err, store.ErrDamaged), errors.Is(err, store.ErrOtherKey):
		return p.needsLogin("needs login: " + err.Error()), now
	case trusted.Mend(err) != "":
		return &ipc.Problem{Code: ipc.CodeConfiguration, Detail: p.name + ": " + err.Error(), Hint: trusted.Mend(err)}, now
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
		hint := unavailable.Hint
		if hint == store.HintFile {
			hint += " --profile " + p.name
		}
		return &ipc.Problem{Code: code, Detail: p.name + ": " + err.Error(), Hint: hint}, now
	}
	return &ipc.Problem{Code: ipc.CodeConfiguration, Detail: p.name + ": " + err.Error(), Hint: "bloq-agent status"}, now
}
