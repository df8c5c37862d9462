package profile

import (
	"context"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/refresher"
)

// Configure puts other settings in force, beside its caller: a profile whose URLs
// or trust changed is opened with the new ones.
func (s *Set) Configure(next Settings) {
	s.settings.Store(&next)
	s.update()
	s.background(func(context.Context) { s.each((*Profile).configure) })
}

func (p *Profile) configure() {
	s, settings := p.state.Load(), p.set.settings.Load()
	switch {
	case s.phase == Opening:
		p.reopen()
	case s.endpoints != settings.Endpoints(p.record()),
		s.login != nil && !s.login.client.Trusts(settings.Client.RootCAs):
		_ = p.replace(p.reconfigure) // reported as an event
	default:
		tryAgain(p, s)
	}
}

// reconfigure is the recipe for other URLs or other trust. A login that serves
// goes on with the secrets and the token that it has: the store need not answer
// for that.
func (p *Profile) reconfigure(old *state) (plan, error) {
	if old.phase != Serving {
		return p.open(old)
	}
	return p.goOn(old)
}

// goOn is the plan to serve with the secrets that old has in memory.
func (p *Profile) goOn(old *state) (plan, error) {
	settings := p.set.settings.Load()
	e := settings.Endpoints(p.record())
	todo := plan{endpoints: e, from: old.inherit()}
	client, err := accounts.New(e, settings.Client)
	item := old.login.copyItem()
	if err == nil {
		err = belongs(&item, e.Token)
	}
	switch {
	case err == nil:
		todo.login = p.newLogin(client, old.login.store, p.record(), item)
		todo.login.exchanging, todo.login.commit = old.login.exchanging, old.login.commit
		todo.login.pending.Store(old.login.pending.Load())
		todo.login.seen.Store(old.login.seen.Load())
		return todo, nil
	case old.phase != Serving: // a lock left it: it waits for the right URLs
		item.Wipe()
		todo.problem, todo.login, todo.again, todo.held = p.storeProblem(err), old.login, true, old.held
		return todo, nil
	case old.unsavedErr() != nil: // only memory has its refresh token
		p.set.on(Event{Kind: NotReloaded, Profile: p.name, Err: err})
		return plan{}, err
	}
	item.Wipe()
	todo.problem, todo.from = p.storeProblem(err), inherited{}
	return todo, nil
}

// tryAgain lets a person who has mended what the endpoint complained of say so by
// a reload, instead of waiting for half an hour.
func tryAgain(p *Profile, s *state) {
	if s.phase != Serving || s.refresher.Snapshot().Class != refresher.Configuration {
		return
	}
	p.set.background(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		// A wish within a second of a failure gets that failure.
		for err := refresher.ErrTooSoon; err == refresher.ErrTooSoon; {
			soon, stop := p.set.clock.After(time.Second)
			select {
			case <-soon:
				_, err = s.refresher.Refresh(ctx) // Published tells what came of it
			case <-ctx.Done():
				err = ctx.Err()
			}
			stop()
		}
	})
}
