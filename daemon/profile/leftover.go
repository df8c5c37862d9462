package profile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bloq-agent/store"
)

// A record names each place that may hold a copy of its login besides the store
// that it uses: from before the copy is written there until it is deleted. So no
// year-long token is stored where no record says so, whenever the daemon dies.

// An entry is the profile's place in the records.
type entry struct{ words }

func (e entry) record() store.Profile {
	r, _ := e.set.records.Lookup(e.name)
	r.Name = e.name
	return r
}

// leftovers are the places other than r's own.
func leftovers(r store.Profile) []string {
	return slices.DeleteFunc(slices.Clone(r.Leftovers), func(name string) bool {
		return r.Store != "" && store.Place(name) == store.Place(r.Store)
	})
}

// moved returns r with its login in the store called to, and a copy left where it
// was.
func moved(r store.Profile, to string) store.Profile {
	from := r.Store
	r.Leftovers = slices.DeleteFunc(slices.Clone(r.Leftovers), func(name string) bool { return store.Place(name) == store.Place(to) })
	if from != "" && store.Place(from) != store.Place(to) && !slices.Contains(r.Leftovers, from) {
		r.Leftovers = append(r.Leftovers, from)
	}
	r.Store = to
	return r
}

// noteCopy records that the store called name may hold a copy from now on.
func (e entry) noteCopy(r store.Profile, name string) error {
	if !slices.Contains(r.Leftovers, name) {
		r.Leftovers = append(slices.Clone(r.Leftovers), name)
	}
	return e.put(r)
}

// put writes the record and makes its profile a member.
func (e entry) put(r store.Profile) error {
	err := e.set.records.Put(r)
	if err == nil {
		e.set.update()
	}
	return err
}

// dropCopies deletes the copies that a move, a login or a logout left in other
// stores, and takes them off the record. What cannot be deleted stays on it. The
// caller holds p.change, or is the recipe of replace.
func (e entry) dropCopies() error {
	r := e.record()
	var left []string
	var errs []error
	for _, name := range leftovers(r) {
		if err := e.deleteItem(name, r.ID); err != nil {
			left = append(left, name)
			errs = append(errs, fmt.Errorf("a copy of the login is left in the %s: %w", name, err))
		}
	}
	if !slices.Equal(left, r.Leftovers) {
		if err := e.keepRecord(r, left); err != nil {
			errs = append(errs, err)
		}
	}
	return oneLine(errs)
}

func oneLine(errs []error) error {
	if len(errs) < 2 {
		return errors.Join(errs...)
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}

// keepRecord writes r with the copies in left. It removes the record if that has no
// login, copies, pending client keys or ended credential.
func (e entry) keepRecord(r store.Profile, left []string) error {
	if r.Store == "" && len(left) == 0 && len(r.Pending) == 0 && r.Ended == "" {
		err := e.set.records.Remove(e.name)
		e.set.update()
		return err
	}
	return e.set.records.Amend(e.name, func(r *store.Profile) { r.Leftovers = left })
}

func (e entry) deleteItem(storeName, id string) error {
	st, err := e.set.stores.Named(storeName, e.name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(e.set.ctx, openTimeout)
	defer cancel()
	return st.Delete(ctx, id)
}

// dropSoon deletes the copies now, or as soon as that works. It returns what a
// person should know, or "".
func (p *Profile) dropSoon() string {
	err := dropRecorded(p)
	if err == nil {
		return ""
	}
	return p.dropInBackground(err)
}

// dropRecorded is dropCopies, unless the login that runs is not on record yet: its
// place is a left-over there.
func dropRecorded(p *Profile) error {
	p.change.Lock()
	defer p.change.Unlock()
	if l := p.state.Load().login; l != nil && l.pending.Load() != nil && len(leftovers(p.record())) > 0 {
		return errors.New("the copies of the login before stay until the new one is on record")
	}
	return p.dropCopies()
}

// dropInBackground is for copies that dropCopies could not delete.
func (p *Profile) dropInBackground(err error) (warning string) {
	p.set.on(Event{Kind: CopyLeft, Profile: p.name, Err: err})
	if p.dropping.CompareAndSwap(false, true) {
		p.set.background(p.dropLater)
	}
	return err.Error() + "; it will be deleted as soon as that works"
}

// dropLater ends when no copy is left, or with ctx.
func (p *Profile) dropLater(ctx context.Context) {
	defer p.dropping.Store(false)
	ctx, cancel := context.WithCancel(ctx) // ends the watch
	defer cancel()
	copies := leftovers(p.record())
	if len(copies) == 0 {
		return
	}
	for w := (&storeWatch{set: p.set, store: copies[0]}); ; {
		if _, ok := w.next(ctx, nil, nil); !ok {
			return
		}
		err := dropRecorded(p)
		if err == nil {
			p.set.on(Event{Kind: Changed, Profile: p.name, Err: asError(p.state.Load().problem)})
			return
		}
	}
}
