package profile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bloq-agent/store"
)

// moveTimeout bounds the writing and reading back of a copy.
const moveTimeout = 20 * time.Second

// Move stores the secrets elsewhere: it writes a copy, reads it back, and only
// then deletes the old one. (PROTOCOL.md section 2.9)
func (p *Profile) Move(to string) error {
	if to != "keyring" && to != "file" {
		return badRequest(fmt.Sprintf("secrets move to keyring or file, not to %q", to))
	}
	err := p.replace(func(old *state) (plan, error) {
		if old.problem != nil {
			return plan{}, old.problem
		}
		from := old.login.store.Name() // the record may not know yet
		if from == to {
			return plan{}, badRequest(fmt.Sprintf("%s: its secrets are in the %s already", p.name, to))
		}
		dst, err := p.set.stores.Named(to, p.name)
		if err != nil {
			return plan{}, badRequest(err.Error())
		}
		item, err := copyTo(p, dst, old)
		if err != nil {
			return plan{}, p.storeProblem(err)
		}
		take := old.inherit()
		take.unsaved = store.Secret{} // the copy has it
		l := p.newLogin(old.login.client, dst, p.record(), item)
		l.exchanging = old.login.exchanging
		l.seen.Store(old.login.seen.Load())
		return plan{
			endpoints: old.endpoints, from: take, login: l,
			events: []Event{{Kind: Moved, Store: to, From: from}},
		}, nil
	})
	if err == nil {
		p.dropSoon() // Status names the copies that remain
	}
	return err
}

// copyTo stores a copy of old's login in dst and makes it the one of the record. A
// second place is on the record only while a copy may have been written there.
func copyTo(p *Profile, dst store.Store, old *state) (store.Item, error) {
	ctx, cancel := context.WithTimeout(p.set.ctx, moveTimeout)
	defer cancel()
	before := p.record()
	if store.Place(before.Store) != store.Place(dst.Name()) {
		if err := p.noteCopy(before, dst.Name()); err != nil {
			return store.Item{}, err
		}
	}
	item := old.login.copyItem()
	item.Serial++
	saveErr := dst.Save(ctx, before.ID, item)
	err := saveErr
	if err == nil {
		err = readsBack(ctx, dst, before.ID, item)
	}
	if err == nil {
		r := moved(p.record(), dst.Name())
		if c := old.login.pending.Load(); c != nil {
			r = c.in(p.record(), dst.Name())
		}
		err = p.put(r)
	}
	if err != nil {
		item.Wipe()
		p.undo(before, saveErr)
		return store.Item{}, err
	}
	return item, nil
}

// undo deletes what a change that failed has stored elsewhere, and takes it off the
// record. Cause is what the store said when it was to take the item, or nil.
func (p *Profile) undo(before store.Profile, cause error) {
	var u *store.Unavailable
	if errors.As(cause, &u) && u.Untouched() {
		if err := p.keepRecord(p.record(), before.Leftovers); err != nil {
			p.set.on(Event{Kind: NotRecorded, Profile: p.name, Err: err})
		}
		return
	}
	if err := p.dropCopies(); err != nil {
		p.dropInBackground(err)
	}
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
