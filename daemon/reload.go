package daemon

import (
	"bytes"
	"context"
	"time"

	"bloq-agent/accounts"
	"bloq-agent/ipc"
	"bloq-agent/refresher"
	"bloq-agent/store"

	"github.com/rs/zerolog"
)

// reload reads the configuration. A file that is wrong keeps what was in
// force.
func (d *Daemon) reload() {
	c, data, err := LoadConfig(d.options.ConfigPath)
	d.lastRead = data
	old := d.config.Load()
	if err != nil {
		d.config.Store(&configState{Config: old.Config, loaded: old.loaded, err: err})
		next := "keeping the one before"
		if old.loaded.IsZero() {
			next = "there is none before it, so nothing is served until it is mended"
		}
		d.log.Error().Err(err).Msg("configuration not taken; " + next)
		return
	}
	d.config.Store(&configState{Config: c, loaded: time.Now()})
	d.applyLevel()
	if !d.running {
		return
	}
	d.log.Info().Str("path", d.options.ConfigPath).Msg("configuration reloaded")
	d.hub.publish(ipc.Event{Time: time.Now().UTC(), Event: "reloaded"})
	d.sinks.Wake()
	// Beside the loop, because they wait for exchanges under way and the store.
	if old.loaded.IsZero() {
		go d.openAll(context.Background())
		return
	}
	go d.reopen(!bytes.Equal(old.rootsPEM, c.rootsPEM))
}

// reopen restarts the profiles whose URLs or trust have changed.
func (d *Daemon) reopen(trust bool) {
	d.eachProfile(func(p *profile) {
		s := p.state.Load()
		endpoints := d.config.Load().endpoints(s.facts)
		if d.stopping.Load() {
			return
		}
		if !trust && s.endpoints == endpoints {
			d.tryAgain(s)
			return
		}
		if s.login == nil {
			d.open(d.ctx, p)
			return
		}
		s.halt()
		next := &state{facts: s.facts, endpoints: endpoints}
		if err := d.carryOver(p, s, next); err != nil {
			if s.refresher.Snapshot().SaveErr != nil {
				// The only copy of its refresh token is in memory.
				d.log.Error().Str("profile", p.name).Err(err).Msg("the configuration is not taken for this profile before its refresh token is saved")
				d.resume(p, s)
				return
			}
			next.problem, next.failed = p.storeProblem(err)
		}
		p.set(next)
		s.wipe()
		d.tellOpened(p, s, next)
	})
}

// tryAgain lets a person who has mended what the endpoint complained of say so by
// a reload, instead of waiting half an hour.
func (d *Daemon) tryAgain(s *state) {
	if s.refresher == nil || s.refresher.Snapshot().Class != refresher.Configuration {
		return
	}
	go func() { // ends with the exchange, or the daemon
		ctx, cancel := context.WithTimeout(d.ctx, time.Minute)
		defer cancel()
		// A wish within a second of a failure gets that failure.
		soon, stop := d.clock.After(time.Second)
		defer stop()
		select {
		case <-soon:
		case <-ctx.Done():
			return
		}
		_, _ = s.refresher.Refresh(ctx) // its loop tells what came of it
	}()
}

// carryOver starts next with the secrets and the token of s, which has been
// stopped: the store need not answer for a change of URLs.
func (d *Daemon) carryOver(p *profile, s, next *state) error {
	client, err := accounts.New(next.endpoints, d.clientOptions())
	if err != nil {
		return err
	}
	item := s.login.copyItem()
	if err := belongs(&item, next.endpoints.Token); err != nil {
		item.Wipe()
		return err
	}
	d.start(p, next, &login{client: client, store: s.login.store, id: s.facts.ID, item: item}, s.inherit())
	return nil
}

func (d *Daemon) applyLevel() {
	level := d.options.LogLevel
	if level == "" {
		level = d.config.Load().LogLevel
	}
	if l, err := zerolog.ParseLevel(level); err == nil && level != "" {
		zerolog.SetGlobalLevel(l)
		return
	}
	zerolog.SetGlobalLevel(zerolog.InfoLevel)
}

// endpoints are the URLs of a profile: what its login recorded, overridden by
// the file.
func (c Config) endpoints(facts store.Profile) accounts.Endpoints {
	e := accounts.Endpoints{Login: facts.LoginURL, Token: facts.TokenURL, Keys: facts.KeysURL, Nodes: facts.NodesURL}
	pc, ok := c.Profiles[facts.Name]
	if !ok {
		return e
	}
	if preset, err := accounts.Environment(pc.Environment); pc.Environment != "" && err == nil {
		e = e.Override(preset)
	}
	if pc.AccountsURL != "" {
		e = e.Override(accounts.FromAccountsURL(pc.AccountsURL))
	}
	return e.Override(pc.Endpoints)
}
