package daemon

import (
	"context"
	"fmt"
	"net/http"

	"bloq-agent/ipc"
	"bloq-agent/ipc/server"
	"bloq-agent/store"
)

// Stores are the places that secrets can rest in.
type Stores struct {
	Keyring *store.Keyring
	File    *store.File
	Memory  *store.Memory
	// Credentials is systemd's directory of them, or "".
	Credentials string
}

// named is the store called name, for one profile.
func (s Stores) named(name, profile string) (store.Store, error) {
	switch name {
	case "keyring":
		return s.Keyring, nil
	case "file":
		return s.File, nil
	case "memory":
		return s.Memory, nil
	case "credential":
		return store.NewCredential(s.Credentials, profile, s.File), nil
	}
	return nil, fmt.Errorf("there is no store %q (keyring, file, memory)", name)
}

// note is a sentence on what a store protects, where that is not plain.
func (s Stores) note(name string) string {
	switch name {
	case "file", "credential":
		return s.File.Key().Describe()
	case "memory":
		return "it forgets everything when the daemon ends"
	}
	return ""
}

// newStore is the name of the store for a profile that has none.
func (d *Daemon) newStore() string {
	for _, name := range []string{d.options.Store, d.config.Load().Store} {
		if name != "" {
			return name
		}
	}
	return "keyring"
}

func (d *Daemon) handleStore(w http.ResponseWriter, r *http.Request) {
	var body ipc.Move
	if err := decode(r, &body); err != nil {
		fail(w, badRequest(err.Error()))
		return
	}
	p, problem := d.asks(w, body.Profile)
	if problem == nil {
		problem = d.move(context.WithoutCancel(r.Context()), p, body.To)
	}
	if problem != nil {
		fail(w, problem)
		return
	}
	server.JSON(w, http.StatusOK, d.profileStatus(p))
}

// move copies p's secrets to another store, reads them back, and only then
// drops the old copy. The record says throughout which other store may hold a
// copy, so that whoever opens the profile after a crash deletes it.
func (d *Daemon) move(ctx context.Context, p *profile, to string) *ipc.Problem {
	p.change.Lock()
	defer p.change.Unlock()
	if problem := p.state.Load().problem; problem != nil {
		return problem
	}
	if to != "keyring" && to != "file" {
		return badRequest(fmt.Sprintf("secrets move to keyring or file, not to %q", to))
	}
	if d.facts(p.name).Store == to {
		return badRequest(fmt.Sprintf("%s: its secrets are in the %s already", p.name, to))
	}
	if err := d.makeRoom(ctx, p, to); err != nil {
		problem, _ := p.storeProblem(err)
		return problem
	}
	old := p.state.Load()
	dst, err := d.options.Stores.named(to, p.name)
	if err != nil {
		return badRequest(err.Error())
	}
	old.halt() // nothing may rotate while there are two copies
	facts, err := d.copyTo(ctx, old, dst)
	if err != nil {
		d.resume(p, old)
		problem, _ := p.storeProblem(err)
		return problem
	}
	d.log.Info().Str("profile", p.name).Str("store", to).Str("from", old.facts.Store).Msg("moved")
	l := &login{client: old.login.client, store: dst, id: facts.ID, item: old.login.copyItem()}
	d.resume(p, &state{facts: facts, endpoints: old.endpoints, login: l, refresher: old.refresher})
	old.login.wipe()
	d.dropSoon(ctx, p) // the status tells
	return nil
}

// copyTo returns the record that is in force from then on.
func (d *Daemon) copyTo(ctx context.Context, old *state, dst store.Store) (store.Profile, error) {
	facts := d.facts(old.facts.Name)
	other := store.Place(old.facts.Store) != store.Place(dst.Name())
	if other {
		facts.Leftover = dst.Name()
		if err := d.records.Put(facts); err != nil {
			return facts, err
		}
	}
	item := old.login.copyItem()
	defer item.Wipe()
	err := dst.Save(ctx, facts.ID, item)
	if err == nil {
		err = readsBack(ctx, dst, facts.ID, item)
	}
	if err == nil {
		facts.Store = dst.Name()
		if other {
			facts.Leftover = old.facts.Store
		}
		err = d.records.Put(facts)
	}
	return facts, err
}

func readsBack(ctx context.Context, s store.Store, id string, want store.Item) error {
	got, err := s.Load(ctx, id)
	if err != nil {
		return err
	}
	defer got.Wipe()
	if !got.Equal(want) {
		return fmt.Errorf("%s gives back another login than it was given", s.Name())
	}
	return nil
}

// elsewhere reports whether f names a copy of its login in another place.
func elsewhere(f store.Profile) bool {
	return f.Leftover != "" && store.Place(f.Leftover) != store.Place(f.Store)
}

// dropLeftover deletes the copy that a move or a login left in another store.
// If that does not work the record keeps naming it: a year-long token must not
// rest where no record says so. The caller holds p.change.
func (d *Daemon) dropLeftover(ctx context.Context, p *profile) error {
	facts := d.facts(p.name)
	if !elsewhere(facts) {
		return nil
	}
	st, err := d.options.Stores.named(facts.Leftover, p.name)
	if err == nil {
		err = st.Delete(ctx, facts.ID)
	}
	left := facts.Leftover
	if err == nil {
		facts.Leftover = ""
		err = d.records.Put(facts)
	}
	if err != nil {
		return fmt.Errorf("a copy of the login is left in the %s: %w", left, err)
	}
	s := *p.state.Load()
	s.facts = facts
	p.set(&s)
	return nil
}

// dropSoon is dropLeftover now, or else as soon as it works. It returns what a
// person should know, or "". The caller holds p.change.
func (d *Daemon) dropSoon(ctx context.Context, p *profile) string {
	err := d.dropLeftover(ctx, p)
	if err == nil {
		return ""
	}
	d.log.Warn().Str("profile", p.name).Err(err).Msg("trying again until it is deleted")
	if !p.dropping {
		p.dropping = true
		go d.dropLater(p, d.facts(p.name).Leftover)
	}
	return err.Error() + "; it will be deleted as soon as that works"
}

// dropLater ends when there is no leftover any more, or the daemon stops.
func (d *Daemon) dropLater(p *profile, left string) {
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	for w := d.waitFor(left); w.wait(ctx); {
		p.change.Lock()
		err := d.dropLeftover(ctx, p)
		p.dropping = err != nil
		p.change.Unlock()
		if err == nil {
			return
		}
	}
}

// makeRoom sees that the record can name what a change to the store called to
// will leave behind: it names one place besides its own. The caller holds
// p.change.
func (d *Daemon) makeRoom(ctx context.Context, p *profile, to string) error {
	f := d.facts(p.name)
	if to = store.Place(to); to == store.Place(f.Store) || to == store.Place(f.Leftover) {
		return nil
	}
	return d.dropLeftover(ctx, p)
}
